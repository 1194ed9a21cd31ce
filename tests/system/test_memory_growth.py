"""A body of 50,000 annotations through the real processes: what it costs in memory."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from tests.factories.callbacks import callback
from tests.servers import wait_until
from tests.service import Service

ANNOTATIONS = 50_000
MEGABYTE = 1_000_000


def body_of_20_megabytes() -> bytes:
    """As Scale sends it: the response is in the envelope and again in the task."""
    boxes = [
        {
            "uuid": f"0a1b2c3d-4e5f-6789-abcd-{n:012}",
            "type": "box",
            "label": f"label-{n % 40}",
            "left": n * 0.25,
            "top": n * 0.5,
            "width": 12.25,
            "height": 31.5,
            "attributes": {"occluded": "partly", "direction": n % 360},
        }
        for n in range(ANNOTATIONS)
    ]
    return callback({"annotations": boxes, "global_attributes": {}})


def highest(processes: list[psutil.Process]) -> dict[int, float]:
    """Return the peak memory of each process in MB. Linux only."""
    found = {}
    for process in processes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        found[process.pid] = int(line.split()[1]) * 1024 / MEGABYTE
    return found


def growth(before: dict[int, float], after: dict[int, float]) -> float:
    return max(after[pid] - before.get(pid, after[pid]) for pid in after)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells the most that a process had"
)
def test_20_megabytes_are_taken_in_bounded_memory(database_url: str, service: Callable[..., Service]) -> None:
    body = body_of_20_megabytes()
    assert 19 * MEGABYTE < len(body) < 22 * MEGABYTE
    here = service(database_url, processes=("web", "worker"), env={"WORKFLOWS_DIR": "nowhere"})
    engine = create_engine(database_url)

    def count(statement: str) -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(statement)).scalar_one())

    here.post_callback(callback({"annotations": []}, task_id="warm-up"))
    here.post_callback(
        b"{" + b" " * 2 * MEGABYTE
    )  # a large one that is no callback: the worker is warm as well
    wait_until(lambda: count("SELECT count(*) FROM deliveries WHERE status = 'stored'") == 0)
    web = here.processes["web"].children()
    worker = [psutil.Process(here.processes["worker"].pid), *here.processes["worker"].children()]
    idle = highest(web), highest(worker)

    answer = here.post_callback(body)
    assert (answer.status_code, answer.json()["status"]) == (200, "stored")
    wait_until(lambda: count("SELECT count(*) FROM annotations") == ANNOTATIONS, 60)
    for n in (1, 2):  # whatever connection to the database they go through
        here.post_callback(body.replace(b"000000000001", b"00000000001%d" % n, 1))
    wait_until(lambda: count("SELECT count(*) FROM deliveries WHERE status = 'processed'") == 4, 60)

    grown = growth(idle[0], highest(web)), growth(idle[1], highest(worker))
    print(f"web grew {grown[0]:.1f} MB, worker {grown[1]:.1f} MB")
    assert grown[0] < 100
    assert grown[1] < 10 * len(body) / MEGABYTE
