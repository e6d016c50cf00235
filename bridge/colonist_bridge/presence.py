"""Which connection a device last announced, from its retained `state` and `lost`.

`lost` counts only if its `boot` and `conn` are those of `state`, so a late last will hides no newer
birth; the two may come in either order. All of it is hearsay: it may make the bridge withdraw a
poll that it holds for a device (who sends it again when back), and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from colonist_protocol import codec
from colonist_protocol.errors import MalformedError

MAX_BYTES: Final = 1024

Boot = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Conn = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Mark(msgspec.Struct, frozen=True):
    """One connection of a device: `boot` is random per boot, `conn` counts connects."""

    boot: Boot
    conn: Conn


@dataclass(slots=True)
class _Marks:
    state: Mark | None = None
    lost: Mark | None = None


class Presence:
    """The newest connection of each device; the longest unheard-of are forgotten first."""

    def __init__(self, max_devices: int) -> None:
        self._max_devices = max_devices
        self._devices: OrderedDict[str, _Marks] = OrderedDict()

    def mark(self, device: str) -> Mark | None:
        """The connection that the device announced last."""
        marks = self._devices.get(device)
        return marks.state if marks else None

    def note(self, device: str, leaf: str, payload: bytes) -> bool:
        """Take a `state` or `lost`; whether what the device had asked for has lost its taker."""
        mark = read_mark(payload)
        if mark is None:
            return False
        marks = self._of(device)
        before = marks.state
        if leaf == "state":
            marks.state = mark
        else:
            marks.lost = mark
        has_rebooted = before is not None and marks.state is not None and before.boot != mark.boot
        return (leaf == "state" and has_rebooted) or marks.state == marks.lost

    def _of(self, device: str) -> _Marks:
        marks = self._devices.setdefault(device, _Marks())
        self._devices.move_to_end(device)
        while len(self._devices) > self._max_devices:
            self._devices.popitem(last=False)
        return marks


def read_mark(payload: bytes) -> Mark | None:
    """`boot` and `conn` of a `state` or `lost`; None for anything else."""
    if len(payload) > MAX_BYTES:
        return None
    try:
        return codec.decode(payload, Mark, "state")
    except MalformedError:
        return None
