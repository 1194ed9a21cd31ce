"""One thread calls everything that is due, in its order, also in a forked child."""

import os
import queue
import threading

from scale.alarms import Alarms


def test_calls_come_in_the_order_of_their_time_without_those_that_were_cancelled() -> None:
    alarms, called = Alarms("test"), queue.SimpleQueue[str]()
    all_are_set = threading.Event()
    alarms.call_later(
        0, all_are_set.wait
    )  # on a busy machine the first would be called before the others are set
    alarms.call_later(0.04, lambda: called.put("last"))
    alarms.call_later(0.01, lambda: called.put("first"))
    alarms.call_later(0.02, lambda: called.put("cancelled")).cancel()
    alarms.call_later(30, lambda: called.put("never"))
    alarms.call_later(0.03, lambda: called.put("second"))
    all_are_set.set()
    assert [called.get(timeout=30) for _ in range(3)] == ["first", "second", "last"]
    alarms.call_later(0, lambda: called.put("more"))
    assert called.get(timeout=30) == "more"
    assert called.empty()


def test_a_forked_child_has_a_thread_of_its_own() -> None:
    alarms, called = Alarms("test"), queue.SimpleQueue[str]()
    alarms.call_later(30, lambda: called.put("of the parent"))
    if (child := os.fork()) == 0:
        try:
            alarms.call_later(0, lambda: called.put("of the child"))
            os._exit(0 if called.get(timeout=30) == "of the child" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
