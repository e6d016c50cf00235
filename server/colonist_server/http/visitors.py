"""Who is at the other end of a connection, as far as it is known."""

from __future__ import annotations

import socket
from collections.abc import Hashable
from typing import Final, cast

MAX_REFUSALS: Final = 4
"""Refusals of an unproven connection past the door; its next one comes in by the door again."""
_V6_PREFIX_BYTES: Final = 8
_V4_IN_V6: Final = b"\x00" * 10 + b"\xff\xff"


class Visitor:
    """What is known of whoever is at the other end of a connection.

    `is_proven`: the last request that was judged was a member's; `trust`: so many more go unjudged.
    """

    __slots__ = ("address", "is_proven", "refusals", "trust")

    def __init__(self, address: Hashable) -> None:
        self.address = address
        self.refusals = 0
        self.is_proven = False
        self.trust = 0


def address_of(peer: object) -> Hashable:
    """Whose budget a peer's address draws on: IPv4 alone, of IPv6 the network of a household."""
    host = cast("tuple[Hashable, ...]", peer)[0] if isinstance(peer, tuple) and peer else ""
    if not isinstance(host, str) or ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    if packed.startswith(_V4_IN_V6):
        return socket.inet_ntoa(packed[len(_V4_IN_V6) :])
    return packed[:_V6_PREFIX_BYTES]
