"""Background work with an owner, and limits in time: nothing is lost in silence, nothing goes on for ever."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from common.errors import DatabaseError
from common.limits import MINUTE, Window
from common.tasks import TaskOwner
from tests.support.waiting import PATIENCE_SECONDS, become

pytestmark = pytest.mark.anyio


def failing(*errors: BaseException) -> tuple[list[int], Callable[[], Coroutine[Any, Any, None]]]:
    """Work that fails with each of these, and its runs."""
    runs: list[int] = []

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) <= len(errors):
            raise errors[len(runs) - 1]

    return runs, work


async def test_what_is_repeated_goes_on_whatever_it_meets(caplog: pytest.LogCaptureFixture) -> None:
    """What the database said has been logged where it was met; all else is logged here."""
    owner = TaskOwner("owner")
    runs, work = failing(DatabaseError(), ValueError("unforeseen"), DatabaseError())
    owner.repeat(0.001, work)
    await become(lambda: len(runs) > 4)
    await owner.cancel(PATIENCE_SECONDS)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == ["background work failed"]
    assert errors[0].exc_info and "unforeseen" in str(errors[0].exc_info[1])
    count = len(runs)
    await asyncio.sleep(0.01)
    assert (len(runs), len(owner)) == (count, 0)


async def test_what_has_begun_when_it_is_cancelled_is_finished() -> None:
    owner, began, go_on, done = TaskOwner("owner"), asyncio.Event(), asyncio.Event(), list[str]()

    async def work() -> None:
        began.set()
        await go_on.wait()
        done.append("done")

    owner.repeat(0.001, work)
    await began.wait()
    cancelling = asyncio.create_task(owner.cancel(PATIENCE_SECONDS))
    await asyncio.sleep(0.01)
    assert not cancelling.done()
    go_on.set()
    await cancelling
    assert done == ["done"]


async def test_cancelling_waits_no_longer_than_it_may() -> None:
    owner = TaskOwner("owner")

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.3)

    owner.start(stubborn())
    await asyncio.sleep(0)
    await owner.cancel(0.01)
    assert len(owner) == 1
    await become(lambda: not len(owner))


async def test_a_task_that_fails_is_logged_with_its_owner(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner("somebody")
    _, work = failing(ValueError("unforeseen"))
    owner.start(work())
    await owner.wait()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info and "unforeseen" in str(record.exc_info[1])
    assert record.fields == {"owner": "somebody"}  # type: ignore[attr-defined]


async def test_waiting_includes_work_that_is_started_meanwhile_and_tasks_that_are_busy() -> None:
    owner, done, all_worked = TaskOwner("owner"), list[str](), asyncio.Event()

    async def work(depth: int) -> None:
        await asyncio.sleep(0.001)
        if depth:
            owner.start(work(depth - 1))
        else:
            all_worked.set()
        done.append(str(depth))

    async def request() -> None:
        with owner.busy():
            await all_worked.wait()
            done.append("busy")

    owner.start(work(3))
    await owner.wait()
    assert done == ["3", "2", "1", "0"]
    all_worked.clear()
    asking = asyncio.create_task(request())
    await asyncio.sleep(0)
    assert len(owner) == 1
    owner.start(work(0))
    await owner.wait()
    assert done == ["3", "2", "1", "0", "0", "busy"]
    assert len(owner) == 0
    await asking


# Limits in time


def test_a_window_counts_from_its_first_and_then_begins_anew() -> None:
    window = Window(10.0)
    assert [window.count(now) for now in (100.0, 100.0, 105.0, 109.9)] == [1, 2, 3, 4]
    assert [window.count(now) for now in (110.0, 119.9, 120.0)] == [1, 2, 1]
    assert window.count(125.0, 7) == 8


def test_what_exceeds_a_window_prolongs_it_in_proportion() -> None:
    """Nothing is gained by sending at once what is allowed in three windows."""
    window = Window(10.0, 5)
    window.count(100.0, 5)
    assert window.ends == 110.0
    window.count(101.0, 5)
    assert window.ends == 120.0
    window.count(102.0)
    assert window.ends == 122.0
    assert (window.count(121.9), window.count(130.0)) == (12, 1)
    once = Window(10.0, 5)
    once.count(100.0, 15)
    assert once.ends == 130.0


def test_a_window_without_a_limit_is_never_prolonged() -> None:
    window = Window(MINUTE)
    window.count(0.0, 1_000_000)
    assert window.ends == MINUTE == 60.0
