"""What bridges say of themselves, and when that is a reason to send open requests again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from colonist_protocol import codec
from colonist_protocol.errors import MalformedError

MAX_BYTES: Final = 4096
MAX_GATEWAYS: Final = 64


class _State(msgspec.Struct, frozen=True):
    boot: str
    conn: int
    uplink: str = "up"
    epoch: str = ""


class Gateways:
    """The newest state of each bridge, by topic; the longest unheard-of are forgotten first.

    Hearsay: it makes a device send at another time, never anything else.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[str, _State] = OrderedDict()
        self.epoch = ""
        """The last epoch token that a bridge has told: a hint, for who has none of its own."""

    def has_come_back(self, topic: str, payload: bytes, is_retained: bool) -> bool:
        """Take a message; whether a bridge has started, connected anew, or has its uplink again.

        A retained state of a bridge not heard of before is old news: it was there when we sent.
        """
        state = _read(payload) if topic.endswith("/state") else None
        if state is None:
            return False
        before = self._states.get(topic)
        self.epoch = state.epoch or self.epoch
        self._states[topic] = state
        self._states.move_to_end(topic)
        while len(self._states) > MAX_GATEWAYS:
            self._states.popitem(last=False)
        if state.uplink != "up":
            return False
        if before is None:
            return not is_retained
        return before != state


def _read(payload: bytes) -> _State | None:
    if len(payload) > MAX_BYTES:
        return None
    try:
        return codec.decode(payload, _State, "gateway state")
    except MalformedError:
        return None
