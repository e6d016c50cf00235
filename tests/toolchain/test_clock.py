"""Virtual time keeps its promises: no real waiting, right order, deadlocks raised."""

import asyncio
import time

import pytest

from tests.support.clock import DeadlockError, VirtualLoop, run_virtual, virtual


def test_a_day_passes_at_once() -> None:
    async def day() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtual(day()) == pytest.approx(86_400)
    assert time.monotonic() - started < 5


@virtual
async def test_timers_fire_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def note(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append((name, asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(note("late", 3.5))
        group.create_task(note("early", 0.25))
    assert seen == [("early", pytest.approx(0.25)), ("late", pytest.approx(3.5))]


@virtual
async def test_timeouts_end_a_wait() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == pytest.approx(10)


def test_forgotten_wake_up_is_a_deadlock() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run_virtual(forgotten())


def test_a_deadlock_still_cleans_up() -> None:
    cleaned: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("yes")

    with pytest.raises(DeadlockError):
        run_virtual(forgotten())
    assert cleaned == ["yes"]


def test_rounding_does_not_stop_a_late_clock() -> None:
    async def ticks() -> float:
        for _ in range(100):
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    start_s = 1.7e9
    assert run_virtual(ticks(), start_s=start_s) == pytest.approx(start_s + 10, abs=0.01)


@virtual
async def test_fixtures_reach_a_virtual_test(tmp_path: object) -> None:
    assert tmp_path
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
