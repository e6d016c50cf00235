"""Refuses strangers without waiting for anything, and works through so many of their signatures.

Who signed a request is known only once its signature was worked through, so that work is what
strangers may take: from each address so much a second, and from all addresses of which no member
was heard lately so much together. A member's request takes nothing of it. Nothing is looked at
before that a stranger could learn from: whether a colony exists changes neither what is answered
nor how fast.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Final

from colonist_core.limits import Buckets, Limits, Rate
from colonist_protocol import envelope, messages
from colonist_protocol.envelope import MAX_PAYLOAD_CHARS
from colonist_protocol.errors import BusyError, ColonistError
from colonist_protocol.identity import parse_signature
from colonist_protocol.times import SECOND_NS
from colonist_server.rpc.dispatch import Answer, Dispatch, refusal
from colonist_server.rpc.table import API

UNIT_CHARS: Final = 8_192
"""A payload of so many characters costs a unit more: it is hashed and read as a whole."""
PASSED_UNITS: Final = 3
"""What goes on without being a member's costs so many more: it is answered further in."""
MAX_ADDRESSES: Final = 4_096
MEMBERS_NS: Final = 600 * SECOND_NS
"""How long an address is remembered as one that members call from."""
LEAST_RETRY_S: Final = 1.0
_ALL: Final = "all"


class Verdict(Enum):
    """What a request is that is not refused at once."""

    MEMBER = 1
    UNSIGNED = 2
    UNSURE = 3
    """It must be looked at further in, and need not be a member's."""


class Gate:
    """Judges the requests of connections of which nothing is known."""

    __slots__ = ("_all", "_dispatch", "_members", "_now_ns", "_of_address", "refused")

    def __init__(
        self, dispatch: Dispatch, limits: Limits, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._dispatch = dispatch
        self._now_ns = now_ns
        self._of_address = Buckets(_rate(limits.strangers), MAX_ADDRESSES)
        self._all = Buckets(_rate(limits.all_strangers), 1)
        self._members: dict[Hashable, int] = {}
        self.refused: Counter[str] = Counter()
        """Requests by the code of their refusal."""

    def judge(self, body: bytes, address: Hashable, *, is_proven: bool = False) -> Answer | Verdict:
        """The refusal of a request, or what it is. `is_proven`: no budget may hold it up."""
        try:
            return self.look(body, address, is_proven=is_proven)
        except ColonistError as error:
            return refusal(error)

    def look(
        self, body: bytes, address: Hashable, *, is_proven: bool = False, door: str = API
    ) -> Verdict:
        """What a request is that came in at `door`. Raises what it is refused with."""
        try:
            return self._look(body, address, is_proven, door)
        except ColonistError as error:
            self.refused[error.code] += 1
            raise

    def _look(self, body: bytes, address: Hashable, is_proven: bool, door: str) -> Verdict:
        request = envelope.parse_request(body)
        if request.payloadtype in messages.UNSIGNED:
            return Verdict.UNSIGNED
        parse_signature(request.signature)
        units = 1 + len(request.payload) // UNIT_CHARS
        took_of_all = not is_proven and self._take(address, units)
        if len(request.payload) > MAX_PAYLOAD_CHARS:
            return Verdict.UNSURE  # read in its turn, not now
        if not self._dispatch.screen(request, door):
            self._of_address.charge(address, PASSED_UNITS)
            return Verdict.UNSURE
        if not is_proven:
            self._of_address.give_back(address, units)
        if took_of_all:
            self._all.give_back(_ALL, units)
        self._note_members(address)
        return Verdict.MEMBER

    def figures(self) -> dict[str, float]:
        """What it tells of itself, by the names of `http.metrics`."""
        busy = self.refused[BusyError.code]
        return {
            "colonist_refused_early_total": self.refused.total() - busy,
            "colonist_refused_strangers_total": busy,
        } | self._dispatch.limiter.figures()

    def _take(self, address: Hashable, units: int) -> bool:
        """Whether it was taken from what all share as well. Raises `BusyError`."""
        now_ns = self._now_ns()
        lacks_ns = self._of_address.take(address, now_ns, units)
        is_of_all = not lacks_ns and self._members.get(address, now_ns) <= now_ns
        if is_of_all:
            lacks_ns = self._all.take(_ALL, now_ns, units)
            if lacks_ns:
                self._of_address.give_back(address, units)
        if lacks_ns:
            text = "too many requests that no member signed come from there: try again"
            raise BusyError(text, retry_after_s=max(LEAST_RETRY_S, lacks_ns / SECOND_NS))
        return is_of_all

    def _note_members(self, address: Hashable) -> None:
        self._members.pop(address, None)
        if len(self._members) >= MAX_ADDRESSES:
            del self._members[next(iter(self._members))]
        self._members[address] = self._now_ns() + MEMBERS_NS


def _rate(per_s: int) -> Rate:
    return Rate(per_s=per_s, burst=per_s)
