"""One task per request: forward it, hold the long poll, publish the reply to the device that asked.

Rules.

- The message was acknowledged to the broker as soon as it was accepted here, not when it is
  answered: an unacknowledged message fills the broker's in-flight window and stops every other
  device, and there is no disk yet on which it could be safe. If the bridge dies, what it held is
  gone; the device sends the same bytes again when it sees the bridge's new `state`, or when its own
  patience ends. So PUBACK says nothing about delivery.
- Bounded: in number and bytes in all, and in number per device. Over a limit: the hint `busy`.
  Reads that the server holds (a device follows what it runs) count apart: they last, and must not
  take the places of the requests that do not.
- The same bytes of a device, while its request is under way, are the same request sent again (after
  a reconnect): they join it. Once the reply was handed to the broker, the same bytes on the same
  connection of the device are a new, equal request (plain ones have no nonce) and go out after it.
- A sealed request may be forwarded as often as it comes: the server gives it one effect. Its reply
  passes byte for byte, if it names this request.
- A plain grant or close whose reply may have been lost with a session is answered again with the
  same reply (see `answered`), not forwarded a second time.
- A copy that the *broker* marks as sent again is never a new request. Forwarded already: dropped.
  Not known here (this bridge has restarted): forwarded only if a second time does no harm.
- One long poll for work per device. A poll for other work replaces the held one, and a device that
  is lost or has rebooted has none: its waiter must not be handed work that nobody takes. To give up
  a poll is to close its HTTP connection; the server then unfiles the waiter. A poll whose reply is
  here already is not given up. A read that waits for a change is held too, beside the poll.
- A reply is published only to the topic of the id that signed the request, at most one per request
  and not over the size limit, so nobody can use the bridge to send more than he was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from colonist_bridge.answered import Answered
from colonist_bridge.counts import Counts
from colonist_bridge.hint import Hint, HintCode, pack_hint
from colonist_bridge.presence import Mark
from colonist_bridge.screen import Refusal, Request
from colonist_bridge.uplink import Uplink
from colonist_client.repeatable import has_effect
from colonist_client.retry import Uniform
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.errors import TooLargeError

RECENT: Final = 8192

_log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], Awaitable[None]]
"""Publish to a device's `rep`; returns once a broker has acknowledged it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and deadlines of forwarding."""

    requests: int = 5000
    request_bytes: int = 64 * 1024 * 1024
    requests_per_device: int = 8
    held_per_device: int = 64
    outside: int = 64
    hints: int = 1000
    reply_s: float = 30.0
    hold_s: float = 900.0
    publish_s: float = 120.0
    retry_after_s: float = 10.0


class _Phase(Enum):
    FORWARDING = auto()
    PUBLISHING = auto()


@dataclass(slots=True, eq=False)
class _Flight:
    request: Request
    mark: Mark | None
    phase: _Phase = _Phase.FORWARDING
    is_wanted_again: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Forwarder:
    """Requests in, replies and hints out. `run` must be running while `accept` is called."""

    def __init__(
        self,
        uplink: Uplink,
        publish: Publish,
        *,
        limits: Limits,
        counts: Counts,
        uniform: Uniform,
        clock: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
        is_outside: Callable[[str], bool] = lambda _device: False,
    ) -> None:
        """`is_outside`: whether an id is known to be no member's; such share a few places."""
        self._is_outside = is_outside
        self._uplink = uplink
        self._publish = publish
        self._limits = limits
        self._counts = counts
        self._uniform = uniform
        self._on_change = on_change
        self._flights: dict[tuple[str, bytes], _Flight] = {}
        self._of_device: dict[str, list[_Flight]] = {}
        self._bytes = 0
        self._hints = 0
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._answered = Answered(clock)
        self._group: asyncio.TaskGroup | None = None

    @property
    def open_requests(self) -> int:
        """How many requests are under way."""
        return len(self._flights)

    @property
    def held_polls(self) -> int:
        """How many of them wait for work at the server."""
        return sum(
            flight.request.is_poll and flight.phase is _Phase.FORWARDING
            for flight in self._flights.values()
        )

    async def run(self) -> None:
        """Own the tasks of all requests; ends when cancelled, and they with it."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def accept(self, request: Request, *, mark: Mark | None = None, is_again: bool = False) -> None:
        """Take a screened request. `is_again`: the broker marks it as a copy."""
        flight = self._flights.get((request.device, request.body))
        if flight is not None:
            self._join(flight, mark, is_again=is_again)
        elif (message := self._answered.again(request, mark)) is not None:
            self._counts.add("answered_again")
            self._say(request.device, message)
        elif is_again and _digest(request) in self._recent:
            self._counts.add("copy_dropped")
        elif is_again and not request.is_repeatable:
            self._counts.add("copy_refused")
            self._hint(request.device, HintCode.UNKNOWN, request.tag)
        else:
            self._admit(request, mark)

    def refuse(self, device: str, refusal: Refusal) -> None:
        """Tell a sender that his message is not forwarded."""
        self._counts.add(f"refused_{refusal.code}")
        self._hint(device, refusal.code, refusal.tag)

    def withdraw(self, device: str) -> None:
        """Give up what the server holds for a device that is not there to take it."""
        for flight in tuple(self._of_device.get(device, ())):
            if flight.request.is_held:
                self._abandon(flight, "poll_withdrawn")

    def _admit(self, request: Request, mark: Mark | None) -> None:
        if request.is_poll:
            self._replace_polls(request.device)
        code = self._obstacle(request)
        if code is None:
            self._launch(_Flight(request, mark))
        else:
            self._counts.add(f"refused_{code}")
            self._hint(request.device, code, request.tag)

    def _join(self, flight: _Flight, mark: Mark | None, *, is_again: bool) -> None:
        is_resent = mark != flight.mark
        flight.mark = mark
        self._answered.again(flight.request, mark)  # it is on its way; note who waits for it
        if flight.phase is _Phase.FORWARDING or is_again or is_resent:
            self._counts.add("joined")
        else:
            flight.is_wanted_again = True

    def _replace_polls(self, device: str) -> None:
        for flight in tuple(self._of_device.get(device, ())):
            if flight.request.is_poll:
                self._abandon(flight, "poll_replaced")

    def _obstacle(self, request: Request) -> HintCode | None:
        limits = self._limits
        if not self._uplink.is_up:
            return HintCode.TRY_LATER
        if (
            self._group is None
            or len(self._flights) >= limits.requests
            or self._bytes + len(request.body) > limits.request_bytes
            or not self._has_room(request)
        ):
            return HintCode.BUSY
        return None

    def _has_room(self, request: Request) -> bool:
        """Whether the device may have one more of this kind: a held read, or anything else."""
        is_watch = _is_watch(request)
        limits = self._limits
        limit = limits.held_per_device if is_watch else limits.requests_per_device
        flights = self._of_device.get(request.device, ())
        if self._is_outside(request.caller) and not self._has_room_outside():
            return False
        return sum(_is_watch(each.request) is is_watch for each in flights) < limit

    def _has_room_outside(self) -> bool:
        """Whether one more may come in of those who are no members."""
        self._counts.add("outside")
        there = sum(self._is_outside(each.request.caller) for each in self._flights.values())
        return there < self._limits.outside

    def _launch(self, flight: _Flight) -> None:
        request = flight.request
        if self._group is None:
            return
        self._flights[request.device, request.body] = flight
        self._of_device.setdefault(request.device, []).append(flight)
        self._bytes += len(request.body)
        flight.task = self._group.create_task(self._carry(flight))
        self._on_change()

    def _land(self, flight: _Flight) -> None:
        request = flight.request
        if self._flights.get((request.device, request.body)) is not flight:
            return
        del self._flights[request.device, request.body]
        flights = self._of_device[request.device]
        flights.remove(flight)
        if not flights:
            del self._of_device[request.device]
        self._bytes -= len(request.body)
        self._remember(_digest(request))
        self._on_change()

    def _abandon(self, flight: _Flight, why: str) -> None:
        if flight.phase is not _Phase.FORWARDING or flight.task is None:
            return
        self._counts.add(why)
        self._land(flight)
        flight.task.cancel()

    async def _carry(self, flight: _Flight) -> None:
        """Supervise one request: whatever happens to it, the others go on."""
        try:
            message = await self._answer(flight)
            flight.phase = _Phase.PUBLISHING
            await self._deliver(flight.request.device, message)
        except Exception:  # noqa: BLE001 - the supervisor of one request
            self._counts.add("failed")
            _log.exception("request %s of %s failed", flight.request.tag, flight.request.device)
        finally:
            self._land(flight)
        if flight.is_wanted_again:
            self._admit(flight.request, flight.mark)

    async def _answer(self, flight: _Flight) -> bytes:
        request = flight.request
        wait_s = min(request.hold_s, self._limits.hold_s) + self._limits.reply_s
        try:
            reply = await self._uplink.exchange(request.body, wait_s=wait_s)
        except NotSentError:
            return self._told(request, HintCode.TRY_LATER)
        except UnreachableError:
            return self._told(request, HintCode.UNKNOWN)
        except TooLargeError:
            return self._told(request, HintCode.REPLY_TOO_LARGE)
        if not reply.is_of(request.caller, request.re, request.index):
            self._counts.add("mismatched_reply")
            return self._packed(HintCode.UNKNOWN, request.tag)
        self._counts.add("answered")
        message = reply.named(request.tag)
        if not request.re and has_effect(request.kind) and not reply.is_error:
            self._answered.keep(request, flight.mark, message)
        return message

    def _told(self, request: Request, code: HintCode) -> bytes:
        self._counts.add(f"told_{code}")
        return self._packed(code, request.tag)

    async def _deliver(self, device: str, message: bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.publish_s):
                await self._publish(device, message)
        except TimeoutError:
            self._counts.add("unpublished")

    def _hint(self, device: str, code: str, tag: str) -> None:
        self._say(device, self._packed(code, tag))

    def _say(self, device: str, message: bytes) -> None:
        if self._group is None or self._hints >= self._limits.hints:
            self._counts.add("hint_dropped")
            return
        self._hints += 1
        self._group.create_task(self._said(device, message))

    async def _said(self, device: str, message: bytes) -> None:
        try:
            await self._deliver(device, message)
        finally:
            self._hints -= 1

    def _packed(self, code: str, tag: str) -> bytes:
        base_s = self._limits.retry_after_s
        delay_s = round(self._uniform(base_s / 2, base_s * 1.5), 1)
        age_s = self._uplink.age_s if code == HintCode.TRY_LATER else None
        return pack_hint(Hint(code=code, retry_after_s=delay_s, req=tag, age_s=age_s))

    def _remember(self, digest: bytes) -> None:
        self._recent[digest] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)


def _is_watch(request: Request) -> bool:
    return request.is_held and not request.is_poll


def _digest(request: Request) -> bytes:
    return hashlib.sha256(request.device.encode() + request.body).digest()
