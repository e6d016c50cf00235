"""What the bridge says of itself on `{prefix}/gw/{bridge}/state`, and its last will on `lost`.

Retained, unsigned, hearsay: it may make a device send early or late, nothing else. Every device
reads it, so it is cheap: at most once a second when something turned that a device acts on (the
uplink), and at most twice a minute for mere figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

TURN_S: Final = 1.0
FIGURES_S: Final = 30.0


class GatewayMark(msgspec.Struct, frozen=True):
    """The payload of `lost`: which connection ended."""

    boot: str
    conn: int


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of `state`. `since` is Unix time by the bridge's own clock, `epoch` is a hint."""

    boot: str
    conn: int
    uplink: str
    since: int
    epoch: str
    backlog_bytes: int
    oldest_age_s: int
    open: int
    held: int
    version: str


class StatePublisher:
    """Publishes the state when it has changed. `run` does it until cancelled."""

    def __init__(
        self,
        read: Callable[[], GatewayState],
        publish: Callable[[], Awaitable[None]],
        *,
        turn_s: float = TURN_S,
        figures_s: float = FIGURES_S,
    ) -> None:
        """`read` gives the state as it is now; `publish` publishes `current` when it can."""
        self._read = read
        self._publish = publish
        self._turn_s = turn_s
        self._figures_s = figures_s
        self._has_turned = asyncio.Event()
        self._has_news = asyncio.Event()

    def turned(self) -> None:
        """Something changed that devices act on."""
        self._has_turned.set()
        self._has_news.set()

    def counted(self) -> None:
        """A figure changed."""
        self._has_news.set()

    def current(self) -> bytes:
        """The payload as it is now."""
        return msgspec.json.encode(self._read())

    async def run(self) -> None:
        """Publish on change, within the two rates."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            self._has_turned.clear()
            await self._publish()
            await asyncio.sleep(self._turn_s)
            await self._until_turned()

    async def _until_turned(self) -> None:
        try:
            async with asyncio.timeout(max(0.0, self._figures_s - self._turn_s)):
                await self._has_turned.wait()
        except TimeoutError:
            pass
