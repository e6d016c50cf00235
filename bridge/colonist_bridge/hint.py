"""The bridge's own words to a device: `{"hint":{"code","retry_after_s","req"}}`.

A hint is unsigned. It says what the bridge did with a request, so that the device need not wait in
vain; it ends nothing. Codes that say "not forwarded": `busy`, `try_later`, and those of a refused
message. `unknown` says: forwarded, no reply, the outcome is unknown. `reply_too_large`: there is a
reply, but it is over the bridge's limit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

REQ_CHARS: Final = 16


class HintCode(StrEnum):
    """What the bridge says of a request that it took; refusals carry the code of their error."""

    BUSY = "busy"
    TRY_LATER = "try_later"
    UNKNOWN = "unknown"
    REPLY_TOO_LARGE = "reply_too_large"
    NOT_YOURS = "not_yours"


class Hint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`req` names the request, "" where none could be read; `age_s`: last contact of the uplink."""

    code: str
    retry_after_s: float = msgspec.field(default_factory=float)
    req: str = msgspec.field(default_factory=str)
    age_s: int | None = None


class _Message(msgspec.Struct, frozen=True):
    hint: Hint


def request_tag(signature: str) -> str:
    """How replies and hints name a request: the first 16 hex characters of its signature."""
    return signature[:REQ_CHARS].lower()


def pack_hint(hint: Hint) -> bytes:
    """The message to publish."""
    return msgspec.json.encode(_Message(hint))
