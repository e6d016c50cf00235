"""What every message has in common, and the registry of all message types."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer of the wire: 64 bits, signed."""

EMPTY_LIST: Final = msgspec.Raw(b"[]")
EMPTY_OBJECT: Final = msgspec.Raw(b"{}")


class Message(msgspec.Struct, kw_only=True, tag_field="msgtype", tag=""):
    """A request. A subclass names its type of message as `tag`; it travels as `msgtype`."""

    @classmethod
    def msgtype(cls) -> str:
        """The name of this type of message on the wire."""
        return str(cls.__struct_config__.tag)


M = TypeVar("M", bound=Message)


def registry(*nouns: tuple[type[Message], ...]) -> dict[str, type[Message]]:
    """All message types by name. Raises `ValueError` for a name that stands twice."""
    found: dict[str, type[Message]] = {}
    for kind in (kind for noun in nouns for kind in noun):
        if kind.msgtype() in found:
            raise ValueError(f"{kind.msgtype()} stands twice")
        found[kind.msgtype()] = kind
    return found
