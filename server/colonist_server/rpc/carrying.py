"""Carrying out what a caller was let in for, on a view that is as fresh as it has to be.

Where other nodes write to the same store, what only reads is answered after the barrier
(`repo.freshness`), and what the view refuses is tried once more after it: nobody is told that there
is no such thing because this node has not heard of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from colonist_protocol.errors import (
    AccessError,
    AssignPausedError,
    AttemptInvalidError,
    AttemptOverError,
    BusyError,
    ConflictError,
    ExistsError,
    NoProcessError,
    NotFoundError,
    ResultConflictError,
)
from colonist_protocol.message import Message
from colonist_server.repo import effects, once
from colonist_server.rpc.admission import Admission
from colonist_server.rpc.asked import Asked
from colonist_server.rpc.limits import Limiter
from colonist_server.rpc.rooms import Call, Reply, Rooms
from colonist_server.rpc.table import Route

log = logging.getLogger(__name__)

_OF_VIEW: Final = (
    AccessError,
    NotFoundError,
    ExistsError,
    ConflictError,
    BusyError,
    NoProcessError,
    AssignPausedError,
    AttemptInvalidError,
    AttemptOverError,
    ResultConflictError,
)
"""Refusals that rest on what this node knows."""

CreateTask = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Carrier:
    """Calls the handlers."""

    __slots__ = ("_admission", "_create_task", "_limiter", "_rooms")

    def __init__(
        self, rooms: Rooms, admission: Admission, limiter: Limiter, create_task: CreateTask
    ) -> None:
        self._rooms = rooms
        self._admission = admission
        self._limiter = limiter
        self._create_task = create_task

    async def carry_out(self, asked: Asked, call: Call | None = None) -> Reply:
        """Do it, on a view that is fresh where that makes a difference.

        `call`: the caller was let in just now.
        """
        freshness = self._rooms.freshness
        if not freshness.is_needed:
            return await self._try(asked, call)
        if not asked.route.needs_all:
            effect = effects.begin()
            try:
                return await self._try(asked)
            except _OF_VIEW:
                if effect.is_there:
                    raise
        await freshness.fresh()
        return await self._try(asked)

    async def _try(self, asked: Asked, call: Call | None = None) -> Reply:
        route = asked.route
        call = call or self._admission.admit(asked)
        if asked.seal is None:
            self._admission.check_plain(route, call)
            self._limiter.pace(call)
        self._limiter.check(route.kind, call, asked.message)
        work = self._handle(route, call, asked.message)
        if route.has_steps:
            return await self._carry_through(work)
        return await work

    async def _handle(self, route: Route[Any], call: Call, message: Message) -> Reply:
        """A sealed request that is answered leaves a record, also when nothing was to be done."""
        self._limiter.enter(route.kind, call)
        try:
            reply = await route.handler(self._rooms, call, message)
            bound = once.latest()
            if bound is not None:
                await self._rooms.writes.finish(bound)
            return reply
        finally:
            self._limiter.leave(route.kind, call)

    async def _carry_through(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        """Run to the end even when the caller leaves; its error is the caller's alone."""
        ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                reply = await work
            except Exception as error:  # noqa: BLE001 - handed to the caller
                if ended.cancelled():
                    log.warning("nobody was there to be told: %s", error)
                else:
                    ended.set_exception(error)
            else:
                if not ended.cancelled():
                    ended.set_result(reply)

        self._create_task(run())
        return await ended
