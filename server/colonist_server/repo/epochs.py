"""The server's count of minutes: by it the age of a sealed request is told, and by no other clock.

One key holds the count and the era. The node that leads moves it on; it never goes back, and a
restore begins another era, so what was sealed for the store as it was before has no effect on it.
"""

from __future__ import annotations

from typing import Final

from colonist_protocol.errors import EpochStaleError
from colonist_protocol.tokens import ERA_BYTES, EpochToken, ServerKeys, last_minute
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock, Entropy
from colonist_server.repo.records import EpochRecord, decode_epoch, encode
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Guard, Put, Revision

MAX_N: Final = 2**32 - 1

_STALE: Final = "the seal's token is not of now: seal the request anew, with the reply's token"


class Epochs:
    """What minute it is. `token` is the newest one, `n` its number."""

    __slots__ = (
        "_clock",
        "_entropy",
        "_revision",
        "_writes",
        "era",
        "guard",
        "n",
        "server_keys",
        "since_n",
        "token",
    )

    def __init__(
        self, writes: Writes, server_keys: ServerKeys, clock: Clock, entropy: Entropy
    ) -> None:
        self._writes = writes
        self.server_keys = server_keys
        self._clock = clock
        self._entropy = entropy
        self._revision: Revision = 0
        self.guard = Guard(keys.EPOCH, 0)
        """Holds as long as it is the minute that this node believes."""
        self.n = 0
        self.era = ""
        self.since_n = 0
        """What was sealed before that minute was for none of the colonies that are yet to come."""
        self.token = ""
        writes.view.hold(keys.EPOCH, self._apply, self._held)

    def is_own(self, token: EpochToken, text: str) -> bool:
        """Whether the server made it; the newest one is known by its text."""
        return text == self.token or self.server_keys.made_epoch(token)

    def is_ahead(self, token: EpochToken) -> bool:
        """Whether a token of this era is newer than what this node knows."""
        return token.era != self.era or token.n > self.n

    def is_fresh(self, token: EpochToken, ttl_s: int) -> bool:
        """Whether a request sealed with it may take effect now."""
        return token.era == self.era and token.n <= self.n <= last_minute(token, ttl_s)

    def check(self, token: EpochToken, ttl_s: int) -> None:
        """Raise `EpochStaleError` unless a request sealed with it may take effect now."""
        if not self.is_fresh(token, ttl_s):
            raise stale()

    async def move_on(self) -> None:
        """Begin the next minute, if it is time; the first one of a store at once."""

        def decide() -> Plan:
            minute = self._clock.now_ns() // keys.MINUTE_NS
            n = min(max(self.n + 1, minute), MAX_N)
            era = bytes.fromhex(self.era) if self.era else self._entropy(ERA_BYTES)
            record = EpochRecord(n, era, self.since_n)
            return Plan([self.guard], [Put(keys.EPOCH, encode(record))])

        await self._writes.apply(decide)

    def removing_colony(self) -> Plan:
        """What goes with the removal of a colony: the next minute begins.

        Ids follow from the request and the colony's tag, and a colony founded anew has another tag.
        So it must not take what was sealed for the one before it (`ColonyRecord.since_n`).
        """
        n = min(self.n + 1, MAX_N)
        record = EpochRecord(n, bytes.fromhex(self.era), n)
        return Plan([self.guard], [Put(keys.EPOCH, encode(record))])

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        if key != keys.EPOCH or revision <= self._revision:
            return
        record = decode_epoch(value) if value is not None else EpochRecord(0, b"")
        self._revision = revision if value is not None else 0
        self.guard = Guard(keys.EPOCH, self._revision)
        self.n, self.era, self.since_n = record.n, record.era.hex(), record.since_n
        self._writes.n = self.n
        self.token = self.server_keys.current.epoch_token(self.n, self.era) if self.era else ""

    def _held(self) -> set[bytes]:
        return {keys.EPOCH} if self._revision else set()


def stale() -> EpochStaleError:
    """What is told of a request that is not of now."""
    return EpochStaleError(_STALE)
