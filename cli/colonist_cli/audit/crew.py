"""Who does the work of a verification: this process, or as many as there are cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from colonist_cli.audit import work
from colonist_cli.audit.work import Task
from colonist_client import memory

T = TypeVar("T")


class Crew(Protocol):
    """Does functions of `work`."""

    def map(self, job: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
        """The results, in the order of the arguments."""
        ...

    def later(self, job: Callable[..., T], *arguments: Any) -> Callable[[], T]:
        """Begin now; what is returned gives the result."""
        ...


class _Alone:
    def map(self, job: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
        return map(job, *arguments)

    def later(self, job: Callable[..., T], *arguments: Any) -> Callable[[], T]:
        return lambda: job(*arguments)


class _Pool:
    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def map(self, job: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
        return self._pool.map(job, *arguments)

    def later(self, job: Callable[..., T], *arguments: Any) -> Callable[[], T]:
        return self._pool.submit(job, *arguments).result


@contextmanager
def crew(task: Task, jobs: int) -> Generator[Crew]:
    """So many processes for a task; of one, this one."""
    if jobs <= 1:
        with work.at(task):
            yield _Alone()
        return
    with _no_secrets():
        pool = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=work.begin, initargs=(task,)
        )
        try:
            yield _Pool(pool)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _no_secrets() -> Generator[None]:
    """Have none in the environment: the processes of a pool get the one that is."""
    whole = dict(os.environ)
    for name in whole.keys() - memory.for_ours(whole).keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(whole)


def cores() -> int:
    """How many processes can run at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
