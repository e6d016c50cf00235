"""The way to the server, and whether it is there.

Any `Transport` carries the requests: HTTP now, one WebSocket for all devices later. Its pool must
be as large as the number of requests that may be open, or held long polls would starve the others.

Rules. Down is said only by a failed connect or a failed probe, never by one request that took too
long or had an odd reply: else one device could make the bridge refuse all others. Such a request
only makes the bridge probe at once. A probe is the protocol's unsigned `versionmsg`, and only what
has the form of a reply answers it: a captive portal's page does not. While down, probes go on with
full jitter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from colonist_bridge.reply import Reply, read_reply
from colonist_client.retry import Backoff
from colonist_client.transport import NotSentError, Transport, UnreachableError
from colonist_protocol.envelope import pack_request
from colonist_protocol.errors import MalformedError
from colonist_protocol.server import Version

PROBE_WAIT_S: Final = 10.0

_log = logging.getLogger(__name__)


class Uplink(Protocol):
    """What the forwarder needs of the way to the server."""

    @property
    def is_up(self) -> bool:
        """Whether requests may be tried."""
        ...

    @property
    def age_s(self) -> int | None:
        """Seconds since the server was last heard; None: never."""
        ...

    async def exchange(self, body: bytes, *, wait_s: float) -> Reply:
        """Forward one request.

        Raises `NotSentError` (it did not leave), `TooLargeError` (the reply), and
        `UnreachableError` (no reply, outcome unknown).
        """
        ...


class ServerUplink:
    """One server behind one transport. `run` keeps the truth about it."""

    def __init__(
        self,
        transport: Transport,
        *,
        reply_bytes: int,
        backoff: Backoff,
        wall: Callable[[], float],
        on_change: Callable[[], None],
        probe_wait_s: float = PROBE_WAIT_S,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        """`wall` is the time of day, for people; `on_change` is called when up or down turns.

        `on_reply` sees each reply that passes.
        """
        self._on_reply = on_reply
        self._transport = transport
        self._reply_bytes = reply_bytes
        self._backoff = backoff
        self._wall = wall
        self._on_change = on_change
        self._probe_wait_s = probe_wait_s
        self._doubt = asyncio.Event()
        self._doubt.set()  # nothing is known at the start
        self._heard: float | None = None
        self._probe = pack_request(Version(), None)
        self.is_up = True
        self.since = wall()

    @property
    def age_s(self) -> int | None:
        """Seconds since the server was last heard; None: never."""
        return None if self._heard is None else max(0, int(self._wall() - self._heard))

    async def exchange(self, body: bytes, *, wait_s: float) -> Reply:
        """See `Uplink`."""
        try:
            reply = read_reply(
                await self._transport.exchange(body, wait_s=wait_s), max_bytes=self._reply_bytes
            )
        except NotSentError as error:
            self._turn(is_up=False, why=str(error))
            raise
        except MalformedError as error:
            self._doubt.set()
            raise UnreachableError(f"what came is no reply: {error}") from None
        except UnreachableError:
            self._doubt.set()
            raise
        self._heard = self._wall()
        if self._on_reply is not None:
            self._on_reply(reply)
        return reply

    async def run(self) -> None:
        """Probe whenever there is doubt, and while down; ends when cancelled."""
        failures = 0
        while True:
            await self._doubt.wait()
            why = await self._ask()
            if not why:
                failures = 0
                self._doubt.clear()
                self._turn(is_up=True, why="")
                continue
            failures += 1
            self._turn(is_up=False, why=why)
            await asyncio.sleep(self._backoff.delay_s(failures))

    async def _ask(self) -> str:
        """Why the server does not answer; empty when it does."""
        try:
            body = await self._transport.exchange(self._probe, wait_s=self._probe_wait_s)
            read_reply(body, max_bytes=self._reply_bytes)
        except (UnreachableError, MalformedError) as error:
            return str(error)
        self._heard = self._wall()
        return ""

    def _turn(self, *, is_up: bool, why: str) -> None:
        if not is_up:
            self._doubt.set()
        if is_up == self.is_up:
            return
        self.is_up = is_up
        self.since = self._wall()
        _log.warning("uplink %s %s", "up" if is_up else "down", why)
        self._on_change()
