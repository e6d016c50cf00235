"""The server's key, and the tokens it makes: of its time (epochs), and of grants (attempts).

Tokens are MACs under a key derived from the server's private key, so no store holds a secret, and
any node with the key can check them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from colonist_protocol import digests
from colonist_protocol.identity import Identity

MAC_BYTES: Final = 16
NONCE_BYTES: Final = 8
ERA_BYTES: Final = 4
MINUTE_S: Final = 60

_MAX: Final = 2**32 - 1
_EPOCH: Final = re.compile(r"(0|[1-9][0-9]{0,9})\.([0-9a-f]{8})\.([0-9a-f]{32})")
_ATTEMPT: Final = re.compile(r"([1-9][0-9]{0,9})\.([0-9a-f]{16})\.([0-9a-f]{32})")


class EpochToken(NamedTuple):
    """`n.era.mac`: minute `n` of the server's count, in the era since its last restore."""

    n: int
    era: str
    mac: str


class AttemptToken(NamedTuple):
    """`number.nonce.mac`: the grant of one attempt to one executor."""

    number: int
    nonce: str
    mac: str


@lru_cache(maxsize=256)
def read_epoch(text: str) -> EpochToken | None:
    """The parts of an epoch token; None for what has another form."""
    found = _EPOCH.fullmatch(text)
    if found is None or int(found[1]) > _MAX:
        return None
    return EpochToken(int(found[1]), found[2], found[3])


@lru_cache(maxsize=256)
def read_attempt(text: str) -> AttemptToken | None:
    """The parts of an attempt token; None for what has another form."""
    found = _ATTEMPT.fullmatch(text)
    if found is None or int(found[1]) > _MAX:
        return None
    return AttemptToken(int(found[1]), found[2], found[3])


def is_epoch_token(text: str) -> bool:
    """Whether the text has the form of an epoch token."""
    return read_epoch(text) is not None


def is_attempt_token(text: str) -> bool:
    """Whether the text has the form of an attempt token."""
    return read_attempt(text) is not None


def last_minute(token: EpochToken, ttl_s: int) -> int:
    """The last minute of the server in which a request with that seal may take effect."""
    return token.n + -(-ttl_s // MINUTE_S)


class ServerKey:
    """A server's identity, and what is derived from it. Its `repr` shows the id only."""

    __slots__ = ("_inner", "_outer", "identity")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        private = bytes.fromhex(identity.reveal())
        secret = hmac.digest(private, digests.TOKEN.encode(), "sha256")
        # The blocks of the key are hashed once (RFC 2104, section 4): a MAC takes a third.
        block = secret.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    @property
    def id(self) -> str:
        """The server id that clients pin."""
        return self.identity.id

    def mac(self, tag: str, *parts: str) -> str:
        """16 bytes, as hex, of the HMAC-SHA256 of what a tagged digest would hash."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(digests.tagged_text(tag, *parts))
        outer.update(inner.digest())
        return outer.digest()[:MAC_BYTES].hex()

    def epoch_token(self, n: int, era: str) -> str:
        """The token of a minute of this server's count."""
        return f"{n}.{era}.{self.mac(digests.EPOCH, str(n), era)}"

    def attempt_token(self, process_id: str, executor_id: str, number: int, nonce: str) -> str:
        """The token of a grant."""
        mac = self.mac(digests.ATTEMPT, process_id, executor_id, str(number), nonce)
        return f"{number}.{nonce}.{mac}"

    def made_epoch(self, token: EpochToken) -> bool:
        """Whether this key made an epoch token."""
        return hmac.compare_digest(token.mac, self.mac(digests.EPOCH, str(token.n), token.era))

    def made_attempt(self, token: AttemptToken, process_id: str, executor_id: str) -> bool:
        """Whether this key made a token for a grant of that process to that executor."""
        mac = self.mac(digests.ATTEMPT, process_id, executor_id, str(token.number), token.nonce)
        return hmac.compare_digest(token.mac, mac)

    def __repr__(self) -> str:
        return f"ServerKey({self.id})"


class ServerKeys:
    """The key of a cluster of servers, and those that it had before, newest first.

    `coming` is a key that will follow: its tokens and its name are good already, so that nodes may
    change one after the other.
    """

    __slots__ = ("_all", "coming", "current", "ids", "via")

    def __init__(
        self, current: Identity, former: Sequence[Identity] = (), *, coming: Identity | None = None
    ) -> None:
        self.current = ServerKey(current)
        self.coming = ServerKey(coming) if coming is not None else None
        later = (self.coming,) if self.coming is not None else ()
        self._all = (self.current, *(ServerKey(each) for each in former), *later)
        self.ids: frozenset[str] = frozenset(key.id for key in self._all)
        """What requests may name as their server."""
        line = (current, *former)
        self.via: tuple[tuple[str, str], ...] = tuple(
            (old.id, sign_successor(old, new.id)) for new, old in pairwise(line)
        )[::-1]
        """Oldest first: each key that was, with its signature of the one that followed."""

    def signing(self, to: str) -> ServerKey:
        """The key that signs replies to what names `to`: who knows the coming one believes it."""
        return self.coming if self.coming is not None and self.coming.id == to else self.current

    @property
    def id(self) -> str:
        """The server id of now."""
        return self.current.id

    def made_epoch(self, token: EpochToken) -> bool:
        """Whether one of these keys made it."""
        return any(key.made_epoch(token) for key in self._all)

    def made_attempt(self, token: AttemptToken, process_id: str, executor_id: str) -> bool:
        """Whether one of these keys made it for that process and executor."""
        return any(key.made_attempt(token, process_id, executor_id) for key in self._all)

    def __repr__(self) -> str:
        return f"ServerKeys({self.id}, {len(self._all) - 1} others)"


def sign_successor(old: Identity, new_id: str) -> str:
    """The old server key's word that another one follows."""
    return old.sign(digests.tagged_text(digests.KEY, old.id, new_id))
