"""What every message has in common, and the registry of all message types."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from colonist_protocol.errors import WrongTypeError

Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer of the wire: 64 bits, signed."""

EMPTY_LIST: Final = msgspec.Raw(b"[]")
EMPTY_OBJECT: Final = msgspec.Raw(b"{}")

_EMPTY: Final = {b"[": EMPTY_LIST, b"{": EMPTY_OBJECT}
_KINDS: Final = {b"[": "array", b"{": "object"}


class Message(msgspec.Struct, kw_only=True, tag_field="msgtype", tag=""):
    """A request. A subclass names its type of message as `tag`; it travels as `msgtype`."""

    @classmethod
    def msgtype(cls) -> str:
        """The name of this type of message on the wire."""
        return str(cls.__struct_config__.tag)


M = TypeVar("M", bound=Message)


def carried(value: msgspec.Raw, opening: bytes, name: str) -> msgspec.Raw:
    """The user's own array (`opening` is `[`) or object (`{`); an empty one for null.

    Raises `WrongTypeError`.
    """
    text = bytes(value)
    if text.startswith(opening):
        return value
    if text == b"null":
        return _EMPTY[opening]
    raise WrongTypeError(f"{name} is not an {_KINDS[opening]}")


def registry(*nouns: tuple[type[Message], ...]) -> dict[str, type[Message]]:
    """All message types by name. Raises `ValueError` for a name that stands twice."""
    found: dict[str, type[Message]] = {}
    for kind in (kind for noun in nouns for kind in noun):
        if kind.msgtype() in found:
            raise ValueError(f"{kind.msgtype()} stands twice")
        found[kind.msgtype()] = kind
    return found
