"""One thread with one connection: blocking calls of an archive, each within its time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from colonist_server.archive.interface import ArchiveError, ArchiveUnavailableError

DEADLINE_S: Final = 10.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class Lane:
    """Runs one transaction after the other, away from the loop.

    `interrupt` makes the connection in use give up, from another thread. `say` turns what a
    database said into a line for people.
    """

    __slots__ = ("_busy_until", "_engine", "_executor", "_interrupt", "_say", "_time_s")

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        interrupt: Callable[[], None],
        say: Callable[[str], str],
        time_s: float = DEADLINE_S,
    ) -> None:
        self._engine = engine
        self._interrupt = interrupt
        self._say = say
        self._time_s = time_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._busy_until = 0.0
        """Until when the call that is under way may take; 0: none is."""

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do a work that may be done twice. Raises `ArchiveError`."""
        until = time.monotonic() + self._time_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._time_s):
                return await loop.run_in_executor(self._executor, self._work, work, until)
        except TimeoutError as error:
            if 0 < self._busy_until <= time.monotonic():
                self._interrupt()
            said = self._say(f"no answer within {self._time_s:g} s")
            raise ArchiveUnavailableError(said) from error
        except RuntimeError as error:  # of an executor that was shut down
            raise ArchiveUnavailableError(self._say("it is closed")) from error

    def _work(self, work: Callable[[Connection], T], until: float) -> T:
        self._busy_until = until
        try:
            return self._twice(work, until)
        finally:
            self._busy_until = 0.0

    def _twice(self, work: Callable[[Connection], T], until: float) -> T:
        """A connection may have been lost long ago: the second try has a new one."""
        try:
            return self._once(work, until)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise self._translated(error) from None
            log.info("connection to the archive was lost, trying anew")
        except (SQLAlchemyError, OSError) as error:
            raise self._translated(error) from None
        try:
            return self._once(work, until)
        except (SQLAlchemyError, OSError) as error:
            raise self._translated(error) from None

    def _once(self, work: Callable[[Connection], T], until: float) -> T:
        with self._engine.begin() as connection:
            done = work(connection)
            # Whoever waited has given up: nothing takes effect behind his back.
            if time.monotonic() > until:
                raise ArchiveUnavailableError(self._say("it was too slow"))
            return done

    def _translated(self, error: SQLAlchemyError | OSError) -> ArchiveError:
        """Without its cause, which may hold what is secret."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        lines = str(cause).strip().splitlines()
        return ArchiveUnavailableError(self._say(lines[0] if lines else type(cause).__name__))

    async def close(self) -> None:
        """Let what is under way end, then give up the connection."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._time_s):
                await loop.run_in_executor(self._executor, self._engine.dispose)
        except TimeoutError:
            self._interrupt()
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
