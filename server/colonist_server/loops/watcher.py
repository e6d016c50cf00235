"""Feeding the view, then those who follow processes, from the watch, in revision order."""

from __future__ import annotations

import logging
from contextlib import aclosing

from colonist_protocol.errors import CorruptRecordError
from colonist_server.repo.load import load
from colonist_server.repo.subscriptions import Subscriptions
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import CompactedError, Revision

log = logging.getLogger(__name__)


class Watcher:
    """Follows the store; `revision` is how far it has come."""

    __slots__ = ("_subscriptions", "_writes", "revision")

    def __init__(self, writes: Writes, subscriptions: Subscriptions, revision: Revision) -> None:
        self._writes = writes
        self._subscriptions = subscriptions
        self.revision = revision

    async def run(self) -> None:
        """Follow until cancelled; fallen too far behind, load the view anew."""
        while True:
            try:
                await self._follow()
            except CompactedError:
                log.warning("watch fell behind revision=%d: loading the view anew", self.revision)
                self.revision = await load(self._writes)
                self._subscriptions.reloaded()

    async def _follow(self) -> None:
        view, subscriptions = self._writes.view, self._subscriptions
        async with aclosing(self._writes.store.watch(self.revision)) as events:
            async for event in events:
                view.watched(event)
                try:
                    subscriptions.watched(event)
                except CorruptRecordError as error:
                    log.warning("followers are not told of revision %d: %s", event.revision, error)
                self.revision = event.revision
