"""Results on their way to the server: kept until the server has answered for good.

A plain result is wanted as long as its lease lasts. A sealed one is final when the server has said
so under its signature, however late: it may still count, and is evidence if it does not.

`Outbox` is where they are kept, `Courier` brings them. `MemoryOutbox` forgets them when the agent
ends; one that writes to disk goes in the same place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from colonist_agent.counters import Counters
from colonist_client.caller import OutcomeUnknownError, decoded
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s
from colonist_client.sealer import Request
from colonist_client.transport import UnreachableError
from colonist_protocol.process import RECORDED
from colonist_protocol.process import Outcome as Said

LATE_S: Final = 5.0
"""How long after the lease a result is still offered: the server's clock decides, not ours."""

REFUSED_S: Final = 30.0
"""How long a sealed result waits after a refusal that may not stand."""
HOPELESS: Final = frozenset(
    {"result_conflict", "attempt_invalid", "seal_invalid", "too_large", "wrong_server"}
)
"""Refusals of sealed results after which the same bytes will never be taken."""

_SENDERS: Final = 4
_RECORDED: Final = Said(outcome=RECORDED)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A signed result, ready to send; repeating it byte for byte is safe.

    `until_s` is the loop time after which nobody wants it; None: always wanted.
    """

    process_id: str
    request: Request
    until_s: float | None


class Outbox(Protocol):
    """Where letters lie until they are delivered or refused."""

    async def add(self, letter: Letter) -> None:
        """Keep a letter; when this returns it is kept as safely as this outbox can."""
        ...

    async def remove(self, letter: Letter) -> None:
        """Forget a letter that was answered for good."""
        ...

    async def load(self) -> Sequence[Letter]:
        """What was left by an earlier run."""
        ...


class MemoryOutbox:
    """Keeps letters as long as the agent runs."""

    def __init__(self) -> None:
        self._kept: dict[int, Letter] = {}

    async def add(self, letter: Letter) -> None:
        """Keep a letter."""
        self._kept[id(letter)] = letter

    async def remove(self, letter: Letter) -> None:
        """Forget a letter."""
        self._kept.pop(id(letter), None)

    async def load(self) -> Sequence[Letter]:
        """Nothing outlives a run."""
        return ()


class Courier:
    """Brings letters to the server until each has got a definite answer or nobody wants it.

    While the server is unreachable, one backoff holds for all letters, not one for each.
    """

    def __init__(
        self,
        client: Client,
        outbox: Outbox,
        *,
        backoff: Backoff,
        counters: Counters,
        capacity: int = 1000,
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._backoff = backoff
        self._counters = counters
        self._capacity = capacity
        self._waiting: dict[int, tuple[float, int, Letter]] = {}
        self._in_flight = 0
        self._held: Counter[str] = Counter()
        self._outage = 0
        self._quiet_until_s = 0.0
        self._changed = asyncio.Condition()

    def holds(self, process_id: str) -> bool:
        """Whether a result of this process is on its way."""
        return self._held[process_id] > 0

    @property
    def pending(self) -> int:
        """How many letters have no definite answer yet."""
        return len(self._waiting) + self._in_flight

    async def send(self, letter: Letter) -> None:
        """Take over a letter: kept first, then brought as soon as may be."""
        self._held[letter.process_id] += 1
        await self._outbox.add(letter)
        await self._schedule(letter, due_s=0.0, failures=0)

    async def room(self) -> None:
        """Wait until there are fewer letters than this courier likes to hold."""
        await self._until(lambda: self.pending < self._capacity)

    async def idle(self) -> None:
        """Wait until every letter has its answer."""
        await self._until(lambda: self.pending == 0)

    async def hurry(self) -> None:
        """The server was heard just now: end the silence after an outage."""
        if self._quiet_until_s:
            async with self._changed:
                self._outage, self._quiet_until_s = 0, 0.0
                self._changed.notify_all()

    async def run(self) -> None:
        """Bring letters until cancelled."""
        for letter in await self._outbox.load():
            self._held[letter.process_id] += 1
            await self._schedule(letter, due_s=0.0, failures=0)
        async with asyncio.TaskGroup() as group:
            for _ in range(_SENDERS):
                group.create_task(self._bring_all())

    async def _bring_all(self) -> None:
        while True:
            failures, letter = await self._next()
            try:
                await self._bring(letter, failures)
            except Exception:
                self._counters.crashes += 1
                log.exception("courier_crashed process=%s", letter.process_id)
                await self._give_up(letter, "sending it fails in this program")
            finally:
                async with self._changed:
                    self._in_flight -= 1
                    self._changed.notify_all()

    async def _bring(self, letter: Letter, failures: int) -> None:
        now = asyncio.get_running_loop().time()
        if letter.until_s is not None and now > letter.until_s + LATE_S:
            await self._give_up(letter, "its lease is over")
            return
        try:
            self._note(letter, await self._client.deliver(letter.request))
        except ServerError as error:
            self._outage = 0
            if letter.request.is_sealed and error.is_definite and error.code not in HOPELESS:
                # An error is never final: who is refused today may be let in tomorrow.
                log.warning("result_refused process=%s: %s", letter.process_id, error)
                due_s = now + self._backoff.delay_s(failures + 1, at_least_s=REFUSED_S)
                await self._schedule(letter, due_s=due_s, failures=failures + 1)
            elif error.is_definite:
                await self._give_up(letter, f"refused ({error.status} {error.code}): {error}")
            else:
                due_s = now + self._backoff.delay_s(failures + 1, at_least_s=advice_s(error))
                await self._schedule(letter, due_s=due_s, failures=failures + 1)
        except OutcomeUnknownError as error:  # so old that the server remembers nothing of it
            self._outage = 0
            await self._give_up(letter, str(error))
        except UnreachableError:
            self._note_outage()
            await self._schedule(letter, due_s=0.0, failures=failures)
        else:
            self._outage = 0
            self._counters.delivered += 1
            await self._forget(letter)

    def _note(self, letter: Letter, reply: bytes) -> None:
        """Tell when a result was kept as evidence only: another one counts."""
        if letter.request.is_sealed and decoded(reply, Said, letter.request.message) == _RECORDED:
            log.info("result_recorded process=%s: another one counts", letter.process_id)

    def _note_outage(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until_s:  # the first of the senders to notice speaks for all
            self._outage += 1
            self._quiet_until_s = now + self._backoff.delay_s(self._outage)

    async def _give_up(self, letter: Letter, reason: str) -> None:
        self._counters.undelivered += 1
        log.warning("result_dropped process=%s reason=%r", letter.process_id, reason)
        await self._forget(letter)

    async def _forget(self, letter: Letter) -> None:
        self._held[letter.process_id] -= 1
        if not self._held[letter.process_id]:
            del self._held[letter.process_id]
        await self._outbox.remove(letter)

    async def _schedule(self, letter: Letter, *, due_s: float, failures: int) -> None:
        async with self._changed:
            self._waiting[id(letter)] = (due_s, failures, letter)
            self._changed.notify_all()

    async def _next(self) -> tuple[int, Letter]:
        loop = asyncio.get_running_loop()
        while True:
            async with self._changed:
                key, due_s = self._earliest()
                if key is not None and due_s <= loop.time():
                    _, failures, letter = self._waiting.pop(key)
                    self._in_flight += 1
                    return failures, letter
                await self._sleep(None if key is None else due_s - loop.time())

    def _earliest(self) -> tuple[int | None, float]:
        key = min(self._waiting, key=lambda each: self._waiting[each][0], default=None)
        if key is None:
            return None, 0.0
        return key, max(self._waiting[key][0], self._quiet_until_s)

    async def _sleep(self, at_most_s: float | None) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(is_so)
