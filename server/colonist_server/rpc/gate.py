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
from typing import Final

from colonist_core.limits import Buckets, Limits, Rate
from colonist_protocol import envelope, messages
from colonist_protocol.envelope import MAX_PAYLOAD_CHARS
from colonist_protocol.errors import BusyError, ColonistError
from colonist_protocol.identity import parse_signature
from colonist_protocol.times import SECOND_NS
from colonist_server.rpc.dispatch import Answer, Dispatch, refusal

UNIT_CHARS: Final = 8_192
"""A payload of so many characters costs a unit more: it is hashed and read as a whole."""
PASSED_UNITS: Final = 3
"""What goes on without being a member's costs so many more: it is answered further in."""
MAX_ADDRESSES: Final = 4_096
MEMBERS_NS: Final = 600 * SECOND_NS
"""How long an address is remembered as one that members call from."""
LEAST_RETRY_S: Final = 1.0
_ALL: Final = "all"


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

    def judge(self, body: bytes, address: Hashable) -> Answer | bool:
        """The refusal of a request; else whether a member signed it. False: that is not known."""
        try:
            request = envelope.parse_request(body)
            if request.payloadtype in messages.UNSIGNED:
                return False
            parse_signature(request.signature)
            units = 1 + len(request.payload) // UNIT_CHARS
            self._take(address, units)
            if len(request.payload) > MAX_PAYLOAD_CHARS:
                return False  # read in its turn, not now
            if not self._dispatch.screen(request):
                self._of_address.take(address, self._now_ns(), PASSED_UNITS)
                return False
            self._give_back(address, units)
        except ColonistError as error:
            self.refused[error.code] += 1
            return refusal(error)
        return True

    def figures(self) -> dict[str, float]:
        """What it tells of itself, by the names of `http.metrics`."""
        busy = self.refused[BusyError.code]
        return {
            "colonist_refused_early_total": self.refused.total() - busy,
            "colonist_refused_strangers_total": busy,
        } | self._dispatch.limiter.figures()

    def _take(self, address: Hashable, units: int) -> None:
        now_ns = self._now_ns()
        lacks_ns = self._of_address.take(address, now_ns, units)
        if not lacks_ns and self._members.get(address, now_ns) <= now_ns:
            lacks_ns = self._all.take(_ALL, now_ns, units)
            if lacks_ns:
                self._of_address.give_back(address, units)
        if lacks_ns:
            text = "too many requests that no member signed come from there: try again"
            raise BusyError(text, retry_after_s=max(LEAST_RETRY_S, lacks_ns / SECOND_NS))

    def _give_back(self, address: Hashable, units: int) -> None:
        """It was a member's: that took nothing, and speaks for where it came from."""
        self._of_address.give_back(address, units)
        now_ns = self._now_ns()
        if self._members.get(address, now_ns) <= now_ns:
            self._all.give_back(_ALL, units)
            if len(self._members) >= MAX_ADDRESSES:
                self._members.pop(next(iter(self._members)))
        else:
            del self._members[address]
        self._members[address] = now_ns + MEMBERS_NS


def _rate(per_s: int) -> Rate:
    return Rate(per_s=per_s, burst=2 * per_s)
