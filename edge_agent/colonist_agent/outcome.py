"""How an attempt ends, and how a result travels.

`out` of a process is a list that every existing SDK can read: text, integers and finite floats.
Whatever else a function returns travels as JSON in a text element:

    None                    []
    7, 1.5, "seven"         [7], [1.5], ["seven"]
    a list or tuple         its elements, each by this table
    {"a": 1}, True, a dataclass or msgspec struct, and any of them or None or a list in a list
                            ['{"a":1}'], ["true"], ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

import msgspec

from colonist_protocol import codec
from colonist_protocol.envelope import MAX_PAYLOAD_CHARS
from colonist_protocol.errors import MalformedError

MAX_OUT_BYTES: Final = MAX_PAYLOAD_CHARS // 4 * 3 - 1024
MAX_ERROR_CHARS: Final = 4_000

_INTEGER_BITS: Final = 63


class Stop(StrEnum):
    """Why an attempt was told to end."""

    LEASE_OVER = "its lease is over"
    CANCELLED = "it was cancelled"
    LOST = "the server has taken it back or ended it"
    AGENT_STOPPED = "agent stopped"


SILENT: Final = frozenset({Stop.LEASE_OVER, Stop.CANCELLED, Stop.LOST})
"""After these the server knows better than we how the process ended: it is told nothing."""


class FailError(Exception):
    """Raise this in a function to fail its process with these reasons, word for word."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The function returned; `out` is JSON, ready to send."""

    out: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The function did not do it."""

    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """Nobody waits for a result of this attempt; nothing is sent."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The agent stops before the function has ended: somebody else shall run it."""

    reason: str


Outcome = Done | Failed | Abandoned | Returned


def done(value: object) -> Done | Failed:
    """The outcome of a function that returned this value; a value that cannot travel fails."""
    try:
        out = codec.encode(elements(value))
        codec.scan(out)
    except (TypeError, ValueError, OverflowError, RecursionError, MalformedError) as error:
        return failed(f"the result cannot travel as JSON: {error}")
    if len(out) > MAX_OUT_BYTES:
        return failed(f"the result is {len(out)} bytes, over the limit of {MAX_OUT_BYTES}")
    return Done(out=msgspec.Raw(out))


def failed(*reasons: str) -> Failed:
    """The outcome with these reasons, each bounded."""
    return Failed(errors=tuple(reason[:MAX_ERROR_CHARS] for reason in reasons))


def elements(value: object) -> list[str | int | float]:
    """A returned value as the elements of `out`, by the table above."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [_element(item) for item in cast("Sequence[object]", value)]
    return [_element(value)]


def _element(value: object) -> str | int | float:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _INTEGER_BITS else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    return msgspec.json.encode(value).decode()
