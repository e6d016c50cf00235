"""What arrives on a device's `rep` topic: replies and hints. Pure; anything else is None.

A plain reply ends in the unsigned member `"req"`, which the bridge put there (docs/adr/0003); it is
taken off again, so that the body is what the server sent, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from colonist_protocol import codec
from colonist_protocol.errors import MalformedError

REQ_CHARS: Final = 16
HINT_FLOOR_S: Final = 0.5
HINT_CAP_S: Final = 3600.0

_NAME: Final = re.compile(rb'\A(.*),"req":"([0-9a-f]{16})"\}\Z', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainReply:
    """A reply and the name of the request that it is said to answer."""

    req: str
    body: bytes


class Hint(msgspec.Struct, frozen=True):
    """A bridge's word on a request. It may delay, it ends nothing."""

    code: Annotated[str, msgspec.Meta(max_length=64)]
    retry_after_s: float = 0.0
    req: str = ""

    @property
    def delay_s(self) -> float:
        """How long to wait before sending again: half a second at least, an hour at most."""
        return min(max(self.retry_after_s, HINT_FLOOR_S), HINT_CAP_S)


class _HintMessage(msgspec.Struct, frozen=True):
    hint: Hint


def request_tag(signature: str) -> str:
    """How replies and hints name a request: the first 16 hex characters of its signature."""
    return signature[:REQ_CHARS].lower()


def read_rep(payload: bytes) -> PlainReply | Hint | None:
    """Read one message whose size was checked. Never raises."""
    named = _NAME.match(payload)
    if named is not None:
        return PlainReply(req=named[2].decode(), body=named[1] + b"}")
    try:
        return codec.decode(payload, _HintMessage, "hint").hint
    except MalformedError:
        return None
