"""Every recorded callback, many times, shuffled, from ten clients at once, into the real service."""

import json
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from tests.amounts import amount
from tests.reliability.load import rows, sandbox_tasks
from tests.servers import wait_until
from tests.service import Service

PAYLOADS = Path(__file__).parent.parent / "payloads"
TIMES, CLIENTS, BURST = amount(5, 20), 10, amount(1_000, 5_000)
CONNECTIONS = 20
"""Of each client during the burst."""
THREADS = 12
OTHER_THREADS = 8
"""Of a web process, besides those that answer requests: the event loop, the dispatcher and others that work in the background."""
SEEDS_TYPES = (
    "annotation", "pointannotation", "lineannotation", "polygonannotation", "cuboidannotation", "imageannotation",
    "segmentannotation", "videoannotation", "videoplaybackannotation", "categorization", "comparison",
    "transcription", "datacollection", "audiotranscription",
)  # fmt: skip


def bodies() -> dict[str, bytes]:
    """task_id → body: each recorded callback that describes its task, under a task_id of its own."""
    found = {}
    for type_name in SEEDS_TYPES:
        for path in sorted((PAYLOADS / type_name).glob("*.json")):
            if path.name.endswith(".expected.json"):
                continue
            body = json.loads(path.read_text())
            if isinstance(body.get("task"), dict) and body["task"].get("status") == "completed":
                task_id = f"{len(found) + 1:024x}"
                body["task_id"] = body["task"]["task_id"] = task_id
                body["task"].pop("unique_id", None)
                body["task"]["is_test"] = False
                found[task_id] = json.dumps(body).encode()
    return found


def test_every_callback_many_times_from_ten_clients_is_one_response_and_one_follow_up(
    database_url: str, redis_url: str, service: Callable[..., Service]
) -> None:
    one = service(database_url, redis_url, env={"SWEEP_SECONDS": "1", "ARTIFACT_HOSTS": "none.example.com"})
    sent = bodies()
    assert len(sent) >= 24
    deck = [task_id for task_id in sent for _ in range(TIMES)]
    random.Random(7).shuffle(deck)
    statuses: Counter[tuple[int, str]] = Counter()
    lock = threading.Lock()

    def client(hand: list[str]) -> None:
        for task_id in hand:
            answer = one.post_callback(sent[task_id])
            while answer.status_code == 503:  # as Scale does
                answer = one.post_callback(sent[task_id])
            with lock:
                statuses[answer.status_code, answer.json().get("status", "")] += 1

    clients = [threading.Thread(target=client, args=(deck[n::CLIENTS],)) for n in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert statuses == {(200, "processed"): len(sent), (200, "duplicate"): len(sent) * (TIMES - 1)}

    ids = ", ".join(f"'{task_id}'" for task_id in sent)
    responses = Counter(
        task_id
        for (task_id,) in rows(database_url, f"SELECT task_id FROM responses WHERE task_id IN ({ids})")
    )
    with_response = {task_id for task_id, body in sent.items() if json.loads(body).get("response")}
    assert responses == dict.fromkeys(with_response, 1)

    polygons = [
        task_id for task_id, body in sent.items() if json.loads(body)["task"]["type"] == "polygonannotation"
    ]
    wanted = Counter(f"polygons-to-boxes.boxes.{task_id}" for task_id in polygons)
    wait_until(
        lambda: (
            rows(database_url, "SELECT count(*) FROM follow_ups WHERE state = 'completed'")[0][0]
            == len(wanted)
        ),
        30,
        "every follow-up is completed",
    )
    created = Counter(task.get("unique_id") for task in sandbox_tasks(one) if task["type"] == "annotation")
    assert created == wanted
    assert requests.get(f"{one.web_url}/livez", timeout=5).status_code == 200


@pytest.mark.slow
def test_a_burst_of_callbacks_is_kept_whole_by_few_threads(
    database_url: str, service: Callable[..., Service]
) -> None:
    one = service(database_url, processes=("web",), env={"WEB_CONCURRENCY": "2", "WEB_THREADS": str(THREADS)})
    answers: Counter[tuple[int, str]] = Counter()
    lock = threading.Lock()
    key = {"scale-callback-auth": one.env["SCALE_LIVE_CALLBACK_KEYS"]}

    def client(hand: Iterable[int]) -> None:
        """Send a callback on each of several connections before any answer is read."""
        waiting = deque(hand)
        connections = [HTTPConnection("127.0.0.1", one.web_port, timeout=60) for _ in range(CONNECTIONS)]
        while waiting:
            sent = [(connection, waiting.popleft()) for connection in connections if waiting]
            for connection, number in sent:
                task = {"task_id": f"{number:024x}", "type": "categorization", "status": "completed"}
                body = json.dumps({"task": task, "task_id": task["task_id"], "response": {"category": "a"}})
                connection.request("POST", "/callbacks/scale", body, key)
            for connection, number in sent:
                answer = connection.getresponse()
                said = json.loads(answer.read())
                with lock:
                    answers[answer.status, said.get("status", "")] += 1
                if answer.status != 200:
                    waiting.append(number)

    clients = [threading.Thread(target=client, args=(range(n, BURST, CLIENTS),)) for n in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert answers[200, "processed"] == BURST, answers
    assert answers.keys() <= {(200, "processed"), (503, "")}
    counts = {
        table: rows(database_url, f"SELECT count(*) FROM {table}")[0][0]
        for table in ("deliveries", "responses")
    }
    assert counts == {"deliveries": BURST, "responses": BURST}
    # A thread of a pool never ends: those that are here now are the most that there were.
    assert max(child.num_threads() for child in one.processes["web"].children()) <= THREADS + OTHER_THREADS
