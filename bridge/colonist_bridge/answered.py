"""Replies that were published a short while ago and that the device may never have seen.

A broker that has lost a session acknowledges a reply that nobody is subscribed to. The device then
connects, and sends the same bytes again; forwarded, they would fetch a *second* process and leave
the first one running with nobody. So replies that must not be lost (a grant, a close) are kept for
a while, and the same bytes on *another connection of the same boot* get the same reply again. If
the device has had it, it sees so by the bytes and sends once more; equal bytes on the *same*
connection are a new request. After a reboot the device has forgotten what it asked, so nothing is
repeated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from colonist_bridge.presence import Mark
from colonist_bridge.screen import Request

KEEP_S: Final = 120.0
MAX_REPLIES: Final = 4096
MAX_BYTES: Final = 32 * 1024 * 1024


@dataclass(slots=True)
class _Kept:
    mark: Mark
    message: bytes
    until: float


class Answered:
    """The newest replies by request, bounded in number, bytes and age; the oldest go first."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        keep_s: float = KEEP_S,
        max_replies: int = MAX_REPLIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._keep_s = keep_s
        self._max_replies = max_replies
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, bytes], _Kept] = OrderedDict()
        self._bytes = 0

    def keep(self, request: Request, mark: Mark | None, message: bytes) -> None:
        """Remember what was published; without a mark there is nothing to tell connections by."""
        self._drop((request.device, request.body))
        if mark is None:
            return
        kept = _Kept(mark, message, self._clock() + self._keep_s)
        self._kept[request.device, request.body] = kept
        self._bytes += len(message)
        while len(self._kept) > self._max_replies or self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def again(self, request: Request, mark: Mark | None) -> bytes | None:
        """The reply to publish once more, if the same bytes come from a newer connection."""
        key = request.device, request.body
        kept = self._kept.get(key)
        if kept is None:
            return None
        is_same_boot = mark is not None and mark.boot == kept.mark.boot
        if mark is None or mark == kept.mark or not is_same_boot or self._clock() > kept.until:
            self._drop(key)
            return None
        kept.mark = mark
        return kept.message

    def _drop(self, key: tuple[str, bytes]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept.message)
