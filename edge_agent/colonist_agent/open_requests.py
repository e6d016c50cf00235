"""The requests that wait for a reply, and which of them is on the wire.

A plain reply names its request by 16 hex characters of its signature, and signatures of equal
messages are equal (RFC 6979). A sealed reply names the digest of its request, and no two are equal;
but a bridge holds one long poll of a device all the same. So of requests that could be taken for
one another only one is on the wire at a time, in the order in which they were asked: those with the
same bytes, and all assigns, since a new one replaces the one that the bridge holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from colonist_client.repeatable import ASSIGN, is_repeatable

REMEMBERED_GRANTS: Final = 64


@dataclass(slots=True, eq=False)
class OpenRequest:
    """One request on its way. `wake` is set when there may be something to do about it."""

    body: bytes
    kind: str
    tag: str
    is_repeatable: bool
    re: str = ""
    index: int = 0
    reply: bytes | None = None
    is_sent: bool = False
    not_before: float = 0.0
    is_due: bool = True
    last_hint: str = ""
    said: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, body: bytes) -> None:
        """The reply is here."""
        self.reply = body
        self.wake.set()

    def send_at(self, when: float) -> None:
        """Send (again) at this time of the loop's clock, unless a hint asked for later."""
        self.not_before = max(self.not_before, when)
        self.is_due = True
        self.wake.set()

    def postpone(self, until: float, code: str) -> None:
        """A hint: send again, but not before `until`."""
        self.last_hint = code
        self.not_before = until
        self.is_due = True
        self.wake.set()


class OpenRequests:
    """Those on the wire by name, the others in line behind them."""

    def __init__(self) -> None:
        self._lines: dict[bytes, _Line] = {}
        self._on_wire: dict[str, OpenRequest] = {}
        self._sealed: dict[tuple[str, int], OpenRequest] = {}
        self._grants: OrderedDict[bytes, None] = OrderedDict()

    @contextlib.asynccontextmanager
    async def opened(
        self, body: bytes, *, kind: str, tag: str, re: str = "", index: int = 0
    ) -> AsyncGenerator[OpenRequest]:
        """Wait for this request's turn; it is on the wire for the length of the block.

        `re` is the digest of a sealed request, `index` which of its replies is wanted.
        """
        key = ASSIGN.encode() if kind == ASSIGN else body
        line = self._lines.setdefault(key, _Line())
        line.length += 1
        try:
            async with line.turn:
                request = OpenRequest(
                    body=body,
                    kind=kind,
                    tag=tag,
                    is_repeatable=is_repeatable(kind, is_sealed=bool(re)),
                    re=re,
                    index=index,
                )
                self._on_wire[tag] = request
                self._sealed[re, index] = request
                try:
                    yield request
                finally:
                    del self._on_wire[tag]
                    self._sealed.pop((re, index), None)
        finally:
            line.length -= 1
            if line.length == 0:
                del self._lines[key]

    def all(self) -> tuple[OpenRequest, ...]:
        """Those on the wire."""
        return tuple(self._on_wire.values())

    def named(self, tag: str) -> OpenRequest | None:
        """The one with this name."""
        return self._on_wire.get(tag)

    def sealed(self, re: str, index: int) -> OpenRequest | None:
        """The sealed one whose reply names this digest and index."""
        return self._sealed.get((re, index)) if re else None

    def is_second_copy(self, request: OpenRequest, reply: bytes) -> bool:
        """Whether this very grant was delivered before.

        QoS 1 may deliver a message twice. A second copy must not become another worker's work; a
        grant holds its start in nanoseconds, so equal bytes are one grant.
        """
        if request.kind != ASSIGN:
            return False
        digest = hashlib.sha256(reply).digest()
        if digest in self._grants:
            return b'"error":true' not in reply
        self._grants[digest] = None
        if len(self._grants) > REMEMBERED_GRANTS:
            self._grants.popitem(last=False)
        return False


@dataclass(slots=True)
class _Line:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0
