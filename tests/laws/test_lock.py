"""The lock of a store's file, which the writer of a killed server may hold a little longer."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from colonist_server.store import file
from colonist_server.store.interface import StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


class FakeTime:
    """Time that passes only by waiting; `at_s` tells what happens then."""

    def __init__(self, at_s: float = 0.0, happens: Callable[[], object] | None = None) -> None:
        self.now = 100.0
        self.due = self.now + at_s
        self.happens = happens

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        if self.happens and self.now >= self.due:
            self.happens()
            self.happens = None


def _take_lock(path: Path) -> int:
    held = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


@pytest.mark.parametrize(("seconds", "told"), [(0.5, 0), (4.5, 1)])
def test_lock_of_a_killed_servers_writer_is_waited_for(
    path: Path, seconds: float, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    held = _take_lock(path)
    clock = FakeTime(seconds, lambda: os.close(held))
    os.close(file._lock(path, clock))
    assert seconds <= clock.now - 100 < seconds + 0.1
    assert len(caplog.records) == told


def test_lock_that_stays_is_refused_after_a_while(path: Path) -> None:
    held = _take_lock(path)
    clock = FakeTime()
    with pytest.raises(StoreError, match="or the writer process of one that was killed"):
        file._lock(path, clock)
    assert clock.now == pytest.approx(100 + file.LOCK_S, abs=0.1)
    os.close(held)
