"""Asks the server for work, one long-poll at a time, for as long as it is let.

A sealed question whose answer was lost is asked again with the same bytes: it is answered with the
same grant. Where nobody remembers it any more, what was granted has to be looked for.

To a pinned server an agent with few slots asks by a standing assign: signed once, presented for one
grant after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple

from msgspec import UNSET

from colonist_agent.counters import Counters
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.processes import GRANTS
from colonist_client.retry import Backoff, advice_s
from colonist_client.sealer import NotGenuineError, Request, Seqs
from colonist_client.transport import UnreachableError
from colonist_protocol.errors import PlainRefusedError, WrongServerError
from colonist_protocol.process import MAX_AHEAD, Process

_PERHAPS_DONE: Final = 500

_ADD: Final = (
    "the colony's owner has to add and approve an executor with this id; where its key was "
    "changed, start this agent again with the new one; where it had enrolled and was removed, it "
    "needs a new key and a card"
)
_REMEDIES: Final = {
    PlainRefusedError.code: "only sealed requests are taken here: set server_id "
    "(COLONIST_SERVER_ID) to the id that the server's operator tells",
    WrongServerError.code: "this may be another server than the pinned one: compare server_id "
    "(COLONIST_SERVER_ID) with the id that the server's operator tells",
}

log = logging.getLogger(__name__)


class Grant(NamedTuple):
    """A process to run; `asked_s`: when it was first asked for, `seqs` None for a plain one."""

    process: Process
    asked_s: float
    seqs: Seqs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a question stays open, and how long to wait after failures of each kind."""

    backoff: Backoff
    refused: Backoff
    poll_s: int = 30

    @classmethod
    def of(cls, backoff: Backoff, *, poll_s: int = 30) -> Patience:
        """After a refusal somebody has to act: wait 30 s at least, up to 5 minutes."""
        refused = Backoff(uniform=backoff.uniform, base_s=30.0, cap_s=270.0, floor_s=30.0)
        return cls(backoff=backoff, refused=refused, poll_s=poll_s)


class Asker:
    """Gets processes for one executor. Never ends by itself, never asks in a hot loop."""

    def __init__(
        self,
        client: Client,
        colony: str,
        *,
        patience: Patience,
        counters: Counters,
        cpu: str = "",
        memory: str = "",
        slots: int = 1,
        on_lost: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`slots`: so many processes are run at once.

        `on_lost` is awaited when there may be a grant that never arrived.
        """
        # Work is asked for while the results of the last are on their way: more than run at once.
        self._ahead = MAX_AHEAD if slots < MAX_AHEAD else 0
        self._client = client
        self._request: Request | None = None
        self._on_lost = on_lost
        self._colony = colony
        self._patience = patience
        self._counters = counters
        self._cpu = cpu
        self._memory = memory
        self._failures = 0

    async def next(self, on_heard: Callable[[], Awaitable[None]]) -> Grant:
        """The next process to run; `on_heard` is awaited whenever the server has answered."""
        while True:
            asked_at_s = asyncio.get_running_loop().time()
            try:
                grant = await self._ask(asked_at_s)
            except (ServerError, UnreachableError) as error:
                await self._wait_after(error)
                continue
            await on_heard()
            if grant is not None:
                self._failures = 0
                return grant
            await self._wait_after_nothing(asked_at_s)

    def _new_request(self) -> Request:
        return self._client.asking(
            self._colony,
            timeout_s=self._patience.poll_s,
            cpu=self._cpu,
            memory=self._memory,
            ahead=self._ahead,
        )

    async def _ask(self, asked_at_s: float) -> Grant | None:
        request = self._request or self._new_request()
        self._request = None
        try:
            process = await self._client.assigned(request)
        except UnreachableError as error:
            await self._without_reply(request, error)
            raise
        except ServerError as error:
            is_wanted = (
                error.status >= _PERHAPS_DONE or error.status == HTTPStatus.TOO_MANY_REQUESTS
            )
            self._request = request if request.is_sealed and is_wanted else None
            raise
        asked_s = asked_at_s if request.first_sent_s is None else request.first_sent_s
        self._go_on(request, asked_at_s, is_granted=process is not None)
        if process is None or (request.is_sealed and process.attempt is UNSET):
            return None  # what was granted before its reply was lost may be over by now
        return Grant(process, asked_s, self._client.attempts.begin(process))

    def _go_on(self, request: Request, asked_at_s: float, *, is_granted: bool) -> None:
        """Keep a standing assign for its next grant, or for this one if there was none yet.

        Not one that is sealed for a former key of the server: that may be taken no more some day.
        What is granted later than that is younger than this question: its lease counts from here.
        """
        if not request.is_standing:
            return
        if is_granted:
            request.advance()
        else:
            request.first_sent_s = asked_at_s
        if request.index < GRANTS and not self._names_former_key(request):
            self._request = request

    async def _without_reply(self, request: Request, error: UnreachableError) -> None:
        """Ask again with the same bytes, unless they will not be answered: look for the grant.

        A node that has not taken the server's new key yet answers under the key that is named.
        """
        is_foreign = isinstance(error, NotGenuineError) and self._names_former_key(request)
        if not is_foreign and error.is_repeatable:
            self._request = request if request.is_sealed else None
        elif self._on_lost is not None:
            await self._on_lost()

    def _names_former_key(self, request: Request) -> bool:
        sealer = self._client.sealer
        return sealer is not None and request.to != sealer.pin.id

    async def _wait_after(self, error: ServerError | UnreachableError) -> None:
        self._failures += 1
        self._counters.assign_errors += 1
        is_refused = _is_refused(error)
        backoff = self._patience.refused if is_refused else self._patience.backoff
        wait_s = backoff.delay_s(self._failures, at_least_s=advice_s(error))
        if is_refused:
            log.error(
                "key_refused colony=%s executor=%s next_try_s=%.0f: %s; %s",
                self._colony,
                self._client.identity.id if self._client.identity else "none",
                wait_s,
                error,
                _REMEDIES.get(_code(error), _ADD),
            )
        else:
            log.warning(
                "assign_failed failures=%d next_try_s=%.1f: %s", self._failures, wait_s, error
            )
        await asyncio.sleep(wait_s)

    async def _wait_after_nothing(self, asked_at_s: float) -> None:
        # An answer that comes too early is no long-poll; asking again at once would be a hot loop.
        took_s = asyncio.get_running_loop().time() - asked_at_s
        if took_s >= min(1.0, self._patience.poll_s / 2):
            self._failures = 0
            return
        self._failures += 1
        await asyncio.sleep(self._patience.backoff.delay_s(self._failures))


def _is_refused(error: ServerError | UnreachableError) -> bool:
    """Whether somebody has to act. Whom a server does not know, it tells so without a signature."""
    if isinstance(error, NotGenuineError):
        return error.said is not None and error.said.status == HTTPStatus.FORBIDDEN
    return isinstance(error, ServerError) and error.status == HTTPStatus.FORBIDDEN


def _code(error: ServerError | UnreachableError) -> str:
    """What a refusal is called, be it by nobody who proved to be the server."""
    said = error.said if isinstance(error, NotGenuineError) else error
    return said.code if said is not None else ""
