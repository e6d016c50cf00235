"""Tells the server which functions this agent has: a catalogue for people, work needs none."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from colonist_agent.function import Registry, Runnable
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.transport import UnreachableError
from colonist_protocol.function import Function

log = logging.getLogger(__name__)


class Announcer:
    """Announces the functions of a registry once."""

    def __init__(
        self, client: Client, colony: str, registry: Registry, *, name: str, backoff: Backoff
    ) -> None:
        """`name` is the executor's; "" asks the server for it."""
        self._client = client
        self._colony = colony
        self._registry = registry
        self._name = name
        self._backoff = backoff

    async def run(self) -> None:
        """Announce; try again while the server is unreachable, let it be when it refuses."""
        failures = 0
        while True:
            try:
                await self._announce()
            except (ServerError, UnreachableError) as error:
                if not is_transient(error):
                    log.warning("functions_not_announced: %s", error)
                    return
                failures += 1
                await asyncio.sleep(self._backoff.delay_s(failures, at_least_s=advice_s(error)))
            else:
                return

    async def _announce(self) -> None:
        name = self._name or await self._own_name()
        known = await self._client.functions(self._colony, executor=name)
        there = {function.funcname for function in known}
        for runnable in self._registry.runnables():
            if runnable.name not in there:
                await self._client.add_function(self._described(runnable, name))
        log.info("functions_announced executor=%s count=%d", name, len(self._registry.names()))

    async def _own_name(self) -> str:
        identity = self._client.identity
        found = await self._client.executor_by_id(self._colony, identity.id if identity else "")
        return found.executorname

    def _described(self, runnable: Runnable, name: str) -> Function:
        return Function(
            executorname=name,
            colonyname=self._colony,
            funcname=runnable.name,
            description=runnable.description or msgspec.UNSET,
            args=runnable.arguments() or msgspec.UNSET,
        )
