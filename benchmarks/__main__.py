"""`make bench`: the data path next to the limit of its parts and to a naive version of this service, round by round."""

import argparse

from rich.console import Console

from benchmarks import attacks, fan_out, growth, stack
from benchmarks.callbacks import callbacks
from benchmarks.chain import chain
from benchmarks.processes import processes


def main() -> None:
    """Measure the parts that were asked for, and print a table of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only",
        choices=("callbacks", "chain", "growth", "fan-out", "attacks", "processes"),
        help="measure one part",
    )
    options = parser.parse_args()
    console = Console(width=140)
    wanted = {options.only} if options.only else {"callbacks", "chain", "growth"}
    with stack.servers() as servers:
        if "callbacks" in wanted:
            console.print(
                "Durable callbacks: PostgreSQL (fsync) and Redis, workers running, 16 connections; medians of rounds in turn"
            )
            console.print(callbacks(servers, options.seconds, options.rounds))
        if "chain" in wanted:
            console.print("From a callback to the task that follows")
            console.print(chain(servers, options.rounds))
        if "growth" in wanted:
            body = growth.large_body()
            console.print("A body of 20 MB, in one process and through the service; then full tables")
            console.print(growth.in_process(servers, body))
            console.print(growth.through_the_service(servers, body, options.rounds))
            console.print(growth.full_tables(servers, options.seconds, options.rounds))
        if "processes" in wanted:
            console.print("More processes on one PostgreSQL")
            console.print(processes(servers, options.seconds))
        if "attacks" in wanted:
            console.print("Honest callbacks during denial-of-service attacks, against undisturbed ones")
            console.print(attacks.attacks(servers, options.seconds))
        if "fan-out" in wanted:  # takes 15 minutes, so only with --only fan-out
            console.print("A follow-up for each of twenty annotations; two processes of the worker")
            console.print(fan_out.planning(servers, 10_000))
            console.print(fan_out.creating(servers, 500))


if __name__ == "__main__":
    main()
