"""What makes a sealed request take effect at most once, whoever presents it, how often, and where.

A request knows its `Once` by its context. To the first commit that it leads to are joined: the
guard that its record is absent, the guard of the minute in which it was found fresh, the guard of
its caller's membership, and the record. So a second presentation, at any node, finds the record or
loses the race; and a node that is behind can neither serve a stale request nor a removed member.

Where the request makes an object whose id is derived from its digest, that object is its record;
what stands under the record's key then is the mark that the object was removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

from colonist_protocol.errors import ColonistError
from colonist_protocol.tokens import EpochToken, last_minute
from colonist_server.repo import keys
from colonist_server.store.interface import Guard, Item, Op, Put

TURN_BYTES: Final = 4
LIFE_MINUTES: Final = 7 * 24 * 60
"""So long beyond its ttl what a request did is remembered; that of an assign no longer than it."""


class AlreadyDone(ColonistError):  # noqa: N818 - no error: the way out of a handler
    """The request took effect before. `value` is what its record says of that."""

    def __init__(self, value: bytes) -> None:
        super().__init__("this request has taken effect already")
        self.value = value


class Mark(NamedTuple):
    """Which request: its token and ttl, its digest; `turn` numbers the grants of a standing one."""

    token: EpochToken
    ttl_s: int
    digest: bytes
    turn: int
    life_minutes: int = LIFE_MINUTES

    @property
    def key(self) -> bytes:
        """Where its record stands; keys go in the order in which they may be forgotten."""
        end = last_minute(self.token, self.ttl_s) + self.life_minutes
        return keys.sealed(end, self.digest, self.turn)

    @property
    def family(self) -> bytes:
        """What the keys of the records of all its grants begin with."""
        return self.key[:-TURN_BYTES]

    def is_forgotten(self, n: int) -> bool:
        """Whether its record may be gone in minute `n`."""
        return n > last_minute(self.token, self.ttl_s) + self.life_minutes


class Minutes(Protocol):
    """The server's minute (`epochs`)."""

    @property
    def guard(self) -> Guard:
        """Holds as long as it is the minute that this node believes."""
        ...

    def is_fresh(self, token: EpochToken, ttl_s: int) -> bool:
        """Whether a request sealed with it may take effect now."""
        ...

    def check(self, token: EpochToken, ttl_s: int) -> None:
        """Raise `EpochStaleError` unless it may."""
        ...


class Once:
    """One presentation of a sealed request; `member` guards its caller's membership.

    `admit` gives that guard anew after a lost race, and raises `AccessError` when it is over.
    """

    __slots__ = (
        "_admit",
        "_epochs",
        "_is_derived",
        "_key",
        "_member",
        "is_spent",
        "mark",
        "value",
    )

    def __init__(
        self,
        mark: Mark,
        epochs: Minutes,
        admit: Callable[[], Guard | None],
        member: Guard | None,
        *,
        is_derived: bool = False,
    ) -> None:
        self.mark = mark
        self._key = mark.key
        self._epochs = epochs
        self._admit = admit
        self._member = member
        self._is_derived = is_derived
        self.value = b""
        """What the record says: the object made."""
        self.is_spent = False
        """Whether it has had its effect: nothing more is joined to what it commits."""

    @property
    def is_fresh(self) -> bool:
        """Whether it may take effect now."""
        return self._epochs.is_fresh(self.mark.token, self.mark.ttl_s)

    def say(self, value: bytes) -> None:
        """What the record is to say."""
        self.value = value

    def join(
        self, guards: Sequence[Guard], ops: Sequence[Op]
    ) -> tuple[Sequence[Guard], Sequence[Op]]:
        """A commit that is the effect; one that was joined before as it is.

        Raises `EpochStaleError`.
        """
        if self.is_spent or any(guard.key == self._key for guard in guards):
            return guards, ops
        self._epochs.check(self.mark.token, self.mark.ttl_s)
        held = {guard.key for guard in guards}
        member = self._member
        joined = [*guards, Guard(self._key, 0), self._epochs.guard]
        if member is not None and member.key not in held:
            joined.append(member)
        if self._is_derived:
            return joined, ops
        return joined, [*ops, Put(self._key, self.value)]

    def read_again(self) -> list[bytes]:
        """What is to be read anew after a lost race: the record first."""
        member = self._member
        return [self._key, keys.EPOCH, *([member.key] if member is not None else [])]

    def look(self, record: Item | None) -> None:
        """Raise `AlreadyDone` for a record that is there; else what forbids another try."""
        if record is not None:
            raise AlreadyDone(record.value)
        self._epochs.check(self.mark.token, self.mark.ttl_s)
        self._member = self._admit()


_current: ContextVar[Once | None] = ContextVar("once", default=None)


def begin(once: Once | None) -> None:
    """A request is tried in this context."""
    _current.set(once)


def current() -> Once | None:
    """What the request at hand is bound by; None for a plain one, and once it had its effect."""
    once = _current.get()
    return once if once is not None and not once.is_spent else None


def bind(guards: Sequence[Guard], ops: Sequence[Op]) -> tuple[Sequence[Guard], Sequence[Op]]:
    """A commit as the request at hand is bound to make it, for who may have to send it again later.

    Raises `EpochStaleError`.
    """
    bound = current()
    return bound.join(guards, ops) if bound is not None else (guards, ops)


def latest() -> Once | None:
    """What the request at hand is or was bound by; None for a plain one."""
    return _current.get()


def say(value: bytes) -> None:
    """Tell the record of the request at hand, if it has one, what is about to be made."""
    once = _current.get()
    if once is not None:
        once.say(value)
