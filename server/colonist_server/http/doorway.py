"""What a connection meets first: rubbish is refused here, before anything is made for it.

A request that proves nothing costs a server parser, tasks and a handler, a hundred microseconds
and more, unless it is seen to be one in the bytes as they come. So a connection begins with little:
whole requests of the common form are judged at once, by the same rules as any other (`rpc.gate`).
The first that may be a member's, and whatever looks unusual, goes on to aiohttp together with its
connection.

Heads of requests are given a time, here and later on the same connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web

from colonist_server.http.unread import Unread
from colonist_server.http.visitors import Visitor, address_of
from colonist_server.rpc.table import API

HEAD_S: Final = 20.0
"""How long the head of a request may take, and a connection that never proved anything may idle."""
KEEP_S: Final = 3630.0
UNPROVEN_KEEP_S: Final = 600.0
"""How long a connection past the door may be idle, if it came in by a member's request or not."""
MAX_AT_DOOR: Final = 4_096
"""Connections that have shown nothing yet; one more, and the one that stood longest must go."""
MAX_UNPROVEN: Final = 4_096
"""Connections past the door by which no member has called; one more, and the oldest must go."""
MAX_SCREENED_BYTES: Final = 65_536
MAX_PIPELINED: Final = 8
"""Refusals in one breath: whoever sends more at once without waiting is cut off."""
MAX_UNREAD_BYTES: Final = 16_384
"""What a connection that proved nothing may leave unread before it counts (`unread`), or goes."""

_START: Final = f"POST {API} HTTP/1.1\r\n".encode()
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n")
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:transfer-encoding|content-encoding|expect|origin|upgrade|connection)[ \t]*:"
    rb"(?![ \t]*keep-alive[ \t]*\r\n)"
)
"""Headers that change how a request is read or answered: that is left to aiohttp."""
_SWEEP_S: Final = 1.0
PARTIAL: Final = -1
UNUSUAL: Final = -2

Judge = Callable[[bytes, Visitor], bytes | None]
"""What a request is answered if that is a refusal: a whole response; else None."""


class _Late(Protocol):
    """A connection that can be told that its time is up."""

    def expire(self) -> None: ...


class _Queue:
    """Who has the same time for something, in the order in which it ends."""

    __slots__ = ("_loop", "_timer", "until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.until: dict[_Late, float] = {}

    def enter(self, who: _Late) -> None:
        """Begin, or begin anew."""
        self.until.pop(who, None)
        self.until[who] = self._loop.time() + HEAD_S
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def leave(self, who: _Late) -> None:
        """It is done, or gone."""
        self.until.pop(who, None)

    def expire_first(self) -> None:
        """Make room."""
        first = next(iter(self.until))
        del self.until[first]
        first.expire()

    def _sweep(self) -> None:
        now = self._loop.time()
        while self.until and next(iter(self.until.values())) <= now:
            self.expire_first()
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep) if self.until else None


class Doors(web.Server):
    """aiohttp's low-level server behind a doorway for each connection."""

    def __init__(
        self, handler: Any, judge: Judge, visitors: dict[object, Visitor], **settings: Any
    ) -> None:
        super().__init__(handler, **settings)
        self.judge = judge
        self.slow = 0
        """Connections that were closed because a head did not come in time."""
        self.visitors = visitors
        self._settings = {key: settings[key] for key in ("access_log", "logger")}
        self._loop = asyncio.get_running_loop()
        self.at_door = _Queue(self._loop)
        self.in_head = _Queue(self._loop)
        self.unread = Unread(self._loop)
        self._unproven: dict[Handler, Visitor] = {}
        """In the order in which they came; some may have proved themselves since."""

    def __call__(self) -> Any:
        """The protocol of a new connection."""
        if len(self.at_door.until) >= MAX_AT_DOOR:
            self.at_door.expire_first()
        return Doorway(self)

    def figures(self) -> dict[str, float]:
        """What the doors tell of themselves."""
        return {
            "colonist_slow_heads_total": self.slow,
            "colonist_slow_readers_total": self.unread.cut,
        }

    def inside(self, visitor: Visitor) -> Handler:
        """A handler for a connection that goes on."""
        keep_s = KEEP_S if visitor.is_proven else UNPROVEN_KEEP_S
        handler = Handler(self, keepalive_timeout=keep_s, loop=self._loop, **self._settings)
        self.visitors[handler] = visitor
        if not visitor.is_proven:
            self._make_room()
            self._unproven[handler] = visitor
        return handler

    def _make_room(self) -> None:
        if len(self._unproven) >= MAX_UNPROVEN:
            oldest = next(iter(self._unproven))
            if not self._unproven.pop(oldest).is_proven:
                oldest.cut()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget the visitor, too."""
        self.visitors.pop(handler, None)
        self._unproven.pop(cast("Handler", handler), None)
        self.in_head.leave(cast("Handler", handler))
        self.unread.leave(handler)
        super().connection_lost(handler, exc)

    def pre_shutdown(self) -> None:
        """Nobody waits at the door any more."""
        while self.at_door.until:
            self.at_door.expire_first()
        super().pre_shutdown()


class Handler(web.RequestHandler):
    """A connection past the door, whose later heads have their time as well."""

    __slots__ = ("_doors",)

    def __init__(self, doors: Doors, **settings: Any) -> None:
        super().__init__(doors, **settings)
        self._doors = doors

    def data_received(self, data: bytes) -> None:
        """Note whether a request is only begun by this."""
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            if self._doors.in_head.until:
                self._doors.in_head.leave(self)
        elif self._messages or self._current_request is not None:
            pass
        elif self not in self._doors.in_head.until:
            self._doors.in_head.enter(self)

    def cut(self) -> None:
        """Make room for another."""
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """What was sent is not taken at once."""
        super().pause_writing()
        if self.transport is not None:
            self._doors.unread.enter(self, self.transport)

    def resume_writing(self) -> None:
        """It was."""
        super().resume_writing()
        self._doors.unread.leave(self)

    def expire(self) -> None:
        """Its time is up."""
        self._doors.slow += 1
        self.force_close()


class Doorway(asyncio.Protocol):
    """A connection of which nothing is known yet."""

    __slots__ = ("_doors", "_rest", "_transport", "_visitor")

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._visitor = Visitor("")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._visitor.address = address_of(transport.get_extra_info("peername"))
        self._doors.at_door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone."""
        self._transport = None
        self._doors.at_door.leave(self)

    def expire(self) -> None:
        """Nothing came in time."""
        self._doors.slow += 1
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Refuse what can be refused; the rest goes on."""
        transport = self._transport
        if transport is None:
            return
        data = self._rest + data if self._rest else data
        for _ in range(MAX_PIPELINED):
            if not data:
                self._rest = b""
                self._doors.at_door.enter(self)
                return
            body_at, ends_at = frame(data)
            if ends_at == PARTIAL:
                self._rest = data
                return
            refusal = (
                None
                if ends_at == UNUSUAL
                else self._doors.judge(data[body_at:ends_at], self._visitor)
            )
            if refusal is None:
                self._go_on(transport, data)
                return
            transport.write(refusal)
            data = data[ends_at:]
            if transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                break
        transport.close()

    def _go_on(self, transport: asyncio.Transport, data: bytes) -> None:
        self._transport = None
        self._doors.at_door.leave(self)
        handler = self._doors.inside(self._visitor)
        if not self._visitor.is_proven:
            transport.set_write_buffer_limits(MAX_UNREAD_BYTES)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(data)


def frame(data: bytes) -> tuple[int, int]:
    """Where the body of the first request begins and ends, or why that is not told."""
    if not data.startswith(_START):
        return 0, PARTIAL if _START.startswith(data) else UNUSUAL
    body_at = data.find(_END) + len(_END)
    if body_at < len(_END):
        return 0, PARTIAL if len(data) < MAX_SCREENED_BYTES else UNUSUAL
    head = data[:body_at].lower()
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or head.count(b"content-length") != 1 or _UNUSUAL.search(head):
        return 0, UNUSUAL
    ends_at = body_at + int(lengths[0])
    return body_at, ends_at if ends_at <= len(data) else UNUSUAL
