"""`make bench`: durable callbacks per second as ratios to bare Flask and to a naive version of this service."""

import argparse
import itertools
import statistics
import time

from rich.console import Console
from rich.table import Table

from benchmarks import attacks, fan_out, growth, stack
from benchmarks.bodies import FIFTY_BOXES, ONE_BOX, POLYGONS, THOUSAND_BOXES, Body
from benchmarks.load import Connection, send
from benchmarks.scale import Scale
from tests.servers import wait_until

GOALS = {ONE_BOX.name: (0.33, 8), FIFTY_BOXES.name: (0.24, 10), THOUSAND_BOXES.name: (0.14, 12)}
ids = itertools.count(1, 10_000_000)


def rate(contender: stack.Contender, body: Body, seconds: float) -> float:
    """Return the callbacks per second that were answered with 200 and stored. Exits if rows are missing."""
    send(contender.port, body, seconds=min(1.0, seconds), first_id=next(ids))  # warm
    before = contender.stored() if contender.tables else (0, 0)
    sent = send(contender.port, body, seconds=seconds, first_id=next(ids))
    if sent.refused:
        raise SystemExit(f"{contender.name} refused {sent.refused} callbacks")
    if contender.tables:
        tasks, annotations = (now - then for now, then in zip(contender.stored(), before, strict=True))
        if tasks != sent.accepted or annotations != sent.accepted * body.annotations:
            raise SystemExit(
                f"{contender.name} acknowledged {sent.accepted} and stored {tasks} ({annotations} rows)"
            )
    return sent.accepted / sent.seconds


def callbacks(servers: stack.Servers, seconds: float, rounds: int) -> Table:
    """Measure the contenders in turn, round by round, so that a slow minute of the machine affects all of them."""
    table = Table(
        "body", "bytes", "bare /s", "naive /s", "weighbridge /s", "÷ bare", "goal", "÷ naive", "goal"
    )
    with stack.bare(servers) as bare, stack.naive(servers) as naive, stack.weighbridge(servers) as ours:
        for body in (ONE_BOX, FIFTY_BOXES, THOUSAND_BOXES):
            rates = [[rate(one, body, seconds) for one in (bare, naive, ours)] for _ in range(rounds)]
            floor, plain, found = (statistics.median(column) for column in zip(*rates, strict=True))
            to_bare = statistics.median(ours_ / bare_ for bare_, _, ours_ in rates)
            to_naive = statistics.median(ours_ / naive_ for _, naive_, ours_ in rates)
            goal_bare, goal_naive = GOALS[body.name]
            table.add_row(
                body.name, f"{body.size:,}", f"{floor:,.0f}", f"{plain:,.0f}", f"{found:,.0f}",
                f"{to_bare:.2f}", f"≥ {goal_bare}", f"{to_naive:.1f}", f"≥ {goal_naive}",
            )  # fmt: skip
    return table


def chain(servers: stack.Servers, results: int) -> Table:
    """Measure the time from a callback to its follow-up at Scale, for single callbacks and for many."""
    table = Table("figure", "naive", "weighbridge", "÷ naive", "goal")
    alone: dict[str, float] = {}
    drain: dict[str, float] = {}
    for contender in (stack.naive, stack.weighbridge):
        scale = Scale()
        with contender(servers, SCALE_API_URL=scale.url) as one:
            connection = Connection(one.port)

            def follow(
                number: int, wanted: int, scale: Scale = scale, connection: Connection = connection
            ) -> float:
                """Post `wanted` results and return the seconds until their last follow-up reached Scale."""
                before, start = len(scale.created), time.monotonic()
                for offset in range(wanted):
                    if connection.post(POLYGONS.with_id(number + offset)) != 200:
                        raise SystemExit("a callback was refused")
                wait_until(lambda: len(scale.created) >= before + wanted, 120, "the follow-ups reach Scale")
                return scale.created[before + wanted - 1][0] - start

            first = next(ids)
            for number in range(5):
                follow(first + number, 1)
            alone[one.name] = statistics.median(follow(next(ids), 1) for _ in range(40))
            drain[one.name] = follow(next(ids), results)
            time.sleep(1)
            if len(scale.created) != 45 + results:
                raise SystemExit(f"{one.name} created {len(scale.created)} follow-ups of {45 + results}")
        scale.close()
    for figure, found in (("callback → follow-up, p50", alone), (f"drain of {results} follow-ups", drain)):
        ours, plain = found["weighbridge"], found["naive"]
        table.add_row(
            figure, f"{plain * 1000:,.0f} ms", f"{ours * 1000:,.0f} ms", f"{ours / plain:.2f}", "≤ 0.4"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", choices=("callbacks", "chain", "growth", "fan-out", "attacks"), help="measure one part"
    )
    options = parser.parse_args()
    console = Console(width=140)
    wanted = {options.only} if options.only else {"callbacks", "chain", "growth"}
    with stack.servers() as servers:
        if "callbacks" in wanted:
            console.print(
                "Durable callbacks: PostgreSQL (fsync) and Redis, workers running, 16 connections; medians"
            )
            console.print(callbacks(servers, options.seconds, options.rounds))
        if "chain" in wanted:
            console.print("From a callback to the task that follows, at a Scale that answers at once")
            console.print(chain(servers, 500))
        if "growth" in wanted:
            body = growth.large_body()
            console.print("A large body, in one process and through the service; then full tables")
            console.print(growth.in_process(servers, body))
            console.print(growth.through_the_service(servers, body))
            console.print(growth.full_tables(servers, options.seconds))
        if "attacks" in wanted:
            console.print("Honest callbacks during denial-of-service attacks, against undisturbed ones")
            console.print(attacks.attacks(servers, options.seconds))
        if "fan-out" in wanted:  # takes 15 minutes, so only with --only fan-out
            console.print("A follow-up for each of twenty annotations; two processes of the worker")
            console.print(fan_out.planning(servers, 10_000))
            console.print(fan_out.creating(servers, 500))


if __name__ == "__main__":
    main()
