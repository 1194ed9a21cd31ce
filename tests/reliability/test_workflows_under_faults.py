"""Every example pipeline at once, with four workers, a Scale that fails a fifth of the POSTs after it has made the task, and
SIGKILLs: what was asked of Scale is judged by Scale's own list of tasks, never by our tables."""

import contextlib
import hashlib
import io
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import psutil
import pytest
import requests
from PIL import Image, ImageDraw

from sandbox.pytest_plugin import SandboxError, ScaleSandbox, running_sandbox
from tests.amounts import amount
from tests.reliability.load import rows
from tests.servers import OwnRedis, wait_until
from tests.service import ROOT, Service
from workflows.definition.reducers import consensus_boxes
from workflows.planning.identity import annotation_key

Task = dict[str, Any]
Start = Callable[..., Service]

EXAMPLES = ROOT / "examples"
ROOTS, SAMPLED, KILLS = amount(2, 6), amount(1, 4), amount(4, 12)
FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("error_after", {"share": 0.2}),
    ("reset_after", {"share": 0.05}),
    ("callback_first", {"share": 0.2}),
    ("throttled", {"share": 0.02}),
    ("duplicated", {"share": 0.2}),
    ("volatile", {"share": 0.1}),
)


@pytest.fixture
def sandbox() -> Iterator[ScaleSandbox]:
    """A stand-in for Scale of this test's own."""
    with running_sandbox(ROOT, None, "--memory", "--speed", "manual") as one:
        people = People(one)
        people.start()
        yield one
        people.home.set()
        people.join()


class People(threading.Thread):
    """Who works at Scale: every pending task is answered after a moment. Some of the first tasks fail, and of three
    people who draw the same boxes one sometimes sees what is not there."""

    ODD: ClassVar = {"annotations": [{"label": "car", "left": 200, "top": 10, "width": 90, "height": 60}]}

    def __init__(self, sandbox: ScaleSandbox) -> None:
        super().__init__(daemon=True)
        self.sandbox = sandbox
        self.home = threading.Event()

    def run(self) -> None:
        while not self.home.wait(0.1):
            for task in self.sandbox.tasks(status="pending"):
                with contextlib.suppress(SandboxError):  # a callback that came first has ended it already
                    self.answer(task["task_id"], task["unique_id"])

    def answer(self, task_id: str, unique_id: str) -> None:
        if unique_id.startswith("first.error-resubmit"):
            self.sandbox.fail(task_id)
        elif re.search(r"consensus\.ask\..*[02468ace]\.3$", unique_id):
            self.sandbox.complete(task_id, self.ODD)
        else:
            self.sandbox.complete(task_id)


class Customer:
    """Creates the first tasks of each example, as a careful customer does, and knows which tasks must follow."""

    def __init__(self, sandbox: ScaleSandbox, callback_url: str) -> None:
        self.sandbox, self.callback_url = sandbox, callback_url
        self.roots: dict[str, list[str]] = {path.stem: [] for path in sorted(EXAMPLES.glob("*.yaml"))}

    def create(self, example: str, type_name: str, **request: Any) -> str:
        """One first task of an example; asked for with its unique_id until Scale has it."""
        unique_id = f"first.{example}.{len(self.roots[example])}"
        whole = {"unique_id": unique_id, "tags": [example], "callback_url": self.callback_url, **request}
        for _ in range(50):
            try:
                self.sandbox.create(type_name, **whole)
                break
            except (SandboxError, OSError) as refused:
                if isinstance(refused, SandboxError) and refused.status == 409:
                    break
                time.sleep(0.02)
        (task,) = self.sandbox.tasks(unique_id=unique_id)
        self.roots[example].append(task["task_id"])
        return str(task["task_id"])

    def create_all(self, start: Callable[[dict[str, Any]], str]) -> None:
        """Create every first task. start: starts the consensus with one input, and returns its id."""
        street = self.image()
        for _ in range(ROOTS):
            boxes = {"objects_to_annotate": ["car"], "with_labels": True}
            self.create(
                "detect-crop-classify", "annotation", attachment_type="image", attachment=street, **boxes
            )
            geometries = {"box": {"objects_to_annotate": ["car"]}}
            self.create(
                "error-resubmit",
                "imageannotation",
                attachment=street,
                geometries=geometries,
                instruction="Draw",
            )
            frames = {"attachment_type": "image", "attachments": [street] * 2, "geometries": geometries}
            self.create("video-second-pass", "videoannotation", **frames)
            self.roots["three-way-consensus"].append(
                start({"image": street, "number": len(self.roots["three-way-consensus"])})
            )
        while sum(map(reviewed, self.roots["segment-review-fix"])) < SAMPLED:
            self.create("segment-review-fix", "segmentannotation", attachment=street, labels=["road", "sky"])

    def image(self) -> str:
        """The address of a picture that the customer keeps."""
        picture = Image.new("RGB", (320, 200), "#9ec5e8")
        ImageDraw.Draw(picture).rectangle((60, 90, 140, 150), fill="#b03030")
        written = io.BytesIO()
        picture.save(written, "PNG")
        uploaded = requests.post(
            f"{self.sandbox.api_url}/files/upload",
            auth=(self.sandbox.live_key, ""),
            files={"file": ("street.png", written.getvalue(), "image/png")},
            timeout=30,
        )
        uploaded.raise_for_status()
        return f"{self.sandbox.url}/files/{uploaded.json()['id']}"

    def expected(self) -> Counter[str]:
        """unique_ids of every task that must have followed, by what Scale itself says of the tasks before them."""
        tasks = {task.get("unique_id", task["task_id"]): task for task in self.sandbox.tasks()}
        by_id = {task["task_id"]: task for task in tasks.values()}
        found: Counter[str] = Counter()
        for root in self.roots["detect-crop-classify"]:
            for box in annotations(by_id[root]):
                if box["width"] >= 16 and box["height"] >= 16:
                    found[f"detect-crop-classify.classify.{root}.{annotation_key(box)}"] += 1
        for root in self.roots["error-resubmit"]:
            if by_id[root]["status"] == "error":  # one whose callback came first was done at once
                found[f"error-resubmit.again.{root}"] += 1
        for root in self.roots["video-second-pass"]:
            found[f"video-second-pass.second-pass.{root}"] += 1
        for root in self.roots["segment-review-fix"]:
            if reviewed(root):
                found[review := f"segment-review-fix.review.{root}"] += 1
                if answer(tasks.get(review)) == "needs work":
                    found[f"segment-review-fix.fix.{tasks[review]['task_id']}"] += 1
        for root in self.roots["three-way-consensus"]:
            copies = [f"three-way-consensus.ask.{root}.{copy}" for copy in (1, 2, 3)]
            found.update(copies)
            if agreement([tasks.get(copy) for copy in copies]) < 0.8:
                found[f"three-way-consensus.tie-breaker.{root}"] += 1
        return found

    def created(self) -> Counter[str]:
        """unique_ids of the tasks that we have created, as Scale lists them."""
        every = (task.get("unique_id", task["task_id"]) for task in self.sandbox.tasks())
        return Counter(unique_id for unique_id in every if not unique_id.startswith("first."))


def annotations(task: Task | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ((task or {}).get("response") or {}).get("annotations") or []
    return found


def answer(task: Task | None) -> str | None:
    said: str | None = ((task or {}).get("response") or {}).get("category")
    return said


def reviewed(task_id: str) -> bool:
    """Whether a task is among the 5 % that examples/segment-review-fix.yaml looks at."""
    drawn = hashlib.sha256(f"segment-review-fix.review.{task_id}".encode()).digest()
    return int.from_bytes(drawn[:8]) / 2**64 < 0.05


def agreement(copies: list[Task | None]) -> float:
    """How far three people agree about the boxes, 0 to 1; 1 while one of them has not answered."""
    if any(copy is None or copy["status"] != "completed" for copy in copies):
        return 1.0
    results = [{"annotations": [{"type": "box", **box} for box in annotations(copy)]} for copy in copies]
    return float(consensus_boxes(results, {"iou": 0.6, "share": 0.51})["agreement"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_example_asks_scale_for_each_task_once(
    database: str, sandbox: ScaleSandbox, service: Start, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(20260401)
    database_url: str = request.getfixturevalue(f"{'sqlite' if database == 'sqlite' else 'postgres'}_url")
    redis: OwnRedis | None = None if database == "sqlite" else request.getfixturevalue("own_redis")
    here = sandbox.url.removeprefix("http://")
    env = {
        "SCALE_API_URL": sandbox.api_url,
        "SCALE_API_KEY": sandbox.live_key,
        "SCALE_TEST_API_KEY": sandbox.test_key,
        "SCALE_LIVE_CALLBACK_KEYS": sandbox.live_callback_key,
        "SCALE_TEST_CALLBACK_KEYS": sandbox.test_callback_key,
        "ARTIFACT_HOSTS": here,
        "ATTACHMENT_HOSTS": here,
        "WORKFLOWS_DIR": str(EXAMPLES),
        "WORKER_CONCURRENCY": "4",
        "LEASE_SECONDS": "3",
        **({} if redis is None else {"SWEEP_SECONDS": "0.5"}),
    }
    one = service(database_url, redis and redis.url, env=env, processes=("web", "worker"))
    customer = Customer(sandbox, f"{one.web_url}/callbacks/scale")
    for name, settings in FAULTS:
        sandbox.add_fault(name, **settings)

    def start(row: dict[str, Any]) -> str:
        started = requests.post(
            f"{one.web_url}/api/v1/workflows/three-way-consensus/inputs",
            json={"inputs": [row]},
            headers={"Authorization": f"Bearer {one.env['API_TOKEN']}"},
            timeout=30,
        )
        started.raise_for_status()
        return str(started.json()["inputs"][0]["task_id"])

    customer.create_all(start)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 1.5))
        kill_something(one, chance)

    def settled() -> bool:
        if not one.processes["worker"].running:
            one.start("worker")
        waiting = rows(database_url, "SELECT count(*) FROM jobs WHERE kind != 'deadline'")[0][0]
        pending = [task for task in sandbox.tasks() if task["status"] == "pending"]
        calling = sandbox.call("GET", "/sandbox/api/state")["callbacks"].get("pending", 0)
        return not waiting and not pending and not calling and customer.created() == customer.expected()

    try:
        wait_until(settled, 300, "Scale has every task that must follow, and nothing is left to do")
    except AssertionError:
        print("missing:", customer.expected() - customer.created())
        print("too many:", customer.created() - customer.expected())
        for statement in (
            "SELECT kind, state, attempts, run_at, last_error FROM jobs LIMIT 20",
            "SELECT workflow, step, state, reason, count(*) FROM follow_ups GROUP BY workflow, step, state, reason",
        ):
            print(*rows(database_url, statement), sep="\n")
        raise
    created = customer.created()
    assert created == customer.expected()
    assert set(created.values()) == {1}
    for example in (name for name, task_ids in customer.roots.items() if task_ids):
        assert any(unique_id.startswith(example) for unique_id in created), example
    joins = rows(
        database_url, "SELECT step, verdict, source_task_id FROM joins ORDER BY step, source_task_id"
    )
    assert {verdict for _, verdict, _ in joins} == {"fire"}
    joined = Counter(step for step, _, _ in joins)
    cars = len({source for step, _, source in joins if step == "agreed"})
    assert joined == {"gathered": ROOTS, "agreed": cars, "tie-breaker": cars}
    print(
        f"{KILLS} kills, {created.total()} tasks created by 5 examples: {dict(Counter(map(step_of, created)))}"
    )


def step_of(unique_id: str) -> str:
    return ".".join(unique_id.split(".")[:2])


def kill_something(one: Service, chance: random.Random) -> None:
    """SIGKILL: a worker with all its children, one of them, or the web. With threads a worker has children only for moments."""
    children = one.processes["worker"].children()
    victim = chance.choice(["worker", "a worker's child", "web"])
    if victim == "a worker's child" and children:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(children).kill()
    elif victim == "web":
        one.kill("web")
        one.start("web")
    else:
        one.kill("worker")
        one.start("worker")
    if not one.processes["worker"].running:
        one.start("worker")
