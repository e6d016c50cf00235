"""What makes a sealed request take effect at most once, whoever presents it, how often, and where.

A request knows its `Once` by its context. To the first commit that it leads to are joined: the
guard that its record is absent, the guard of the minute in which it was found fresh, the guard of
its caller's membership, and the record. So a second presentation, at any node, finds the record or
loses the race; and a node that is behind can neither serve a stale request nor a removed member.

Where the request makes an object whose id is derived from its digest, that object is its record as
long as it is young: nobody moves it out of the store without leaving a record (`tombstones`). When
the request is older, the object is looked for in the archive too, and a record is left besides.

What is remembered is who signed what: the same bytes signed by another member are another request,
and take nothing from this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

import msgspec

from colonist_core.process import Cause
from colonist_protocol.errors import ColonistError
from colonist_protocol.tokens import EpochToken, last_minute
from colonist_server.repo import keys
from colonist_server.store.interface import Guard, Item, Op, Put, Revision

TURN_BYTES: Final = 4
LIFE_MINUTES: Final = 7 * 24 * 60
"""So long beyond its ttl what a request did is remembered."""
ASSIGN_LIFE_MINUTES: Final = 5
"""The same, of an assign that is not standing, and of a subscription."""
STORED_MINUTES: Final = 3
"""An object derived from a token so young is in the store, or has left a record there."""


class AlreadyDone(ColonistError):  # noqa: N818 - no error: the way out of a handler
    """The request took effect before. `value` is what its record says of that, since `revision`."""

    def __init__(self, value: bytes, revision: Revision) -> None:
        super().__init__("this request has taken effect already")
        self.value = value
        self.revision = revision


def key_of(cause: Cause) -> bytes:
    """What a request is known by: its digest, and who signed that."""
    return hashlib.sha3_256(cause.digest + bytes.fromhex(cause.who)).digest()


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Which request: its token and ttl, and what `key_of` says of it.

    `turn` numbers the grants of a standing one.
    """

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
    def n(self) -> int:
        """Its number."""
        ...

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


class Derived(msgspec.Struct, frozen=True, gc=False):
    """An object whose id follows from the request: its key, and what a record says of it.

    `is_made` tells from what stands under the key whether it is there already.
    """

    id: bytes
    key: bytes
    is_made: Callable[[bytes], bool]


class Once:
    """One presentation of a sealed request; `member` guards its caller's membership.

    `admit` gives that guard anew after a lost race, and raises `AccessError` when it is over. One
    that `records_last` has steps that may be repeated: its record is written after them.
    """

    __slots__ = (
        "_absent",
        "_admit",
        "_epochs",
        "_is_last",
        "_is_preparing",
        "_key",
        "_member",
        "derived",
        "has_looked_far",
        "is_spent",
        "mark",
        "records_last",
        "value",
    )

    def __init__(
        self,
        mark: Mark,
        epochs: Minutes,
        admit: Callable[[], Guard | None],
        member: Guard | None,
        *,
        derived: Derived | None = None,
        records_last: bool = False,
    ) -> None:
        self.mark = mark
        self._key = mark.key
        self._absent = Guard(self._key, 0)
        self._epochs = epochs
        self._admit = admit
        self._member = member
        self._is_preparing = False
        self._is_last = not records_last
        self.records_last = records_last
        self.derived = derived
        self.value = derived.id if derived is not None else b""
        self.has_looked_far = False
        """Whether what is derived was looked for in the archive too, and not found."""
        self.is_spent = False
        """Whether it has had its effect: nothing more is joined to what it commits."""

    @property
    def is_fresh(self) -> bool:
        """Whether it may take effect now."""
        return self._epochs.is_fresh(self.mark.token, self.mark.ttl_s)

    @property
    def is_old(self) -> bool:
        """Whether what is derived from it may have been moved to the archive."""
        return self.derived is not None and self._epochs.n - self.mark.token.n > STORED_MINUTES

    @property
    def must_look(self) -> bool:
        """Whether it is to be looked for in the archive before anything is committed."""
        return self.is_old and not self.has_looked_far

    def say(self, value: bytes) -> None:
        """What the record is to say: the object made."""
        self.value = value

    @property
    def own_guards(self) -> list[Guard]:
        """What is joined to a commit that is, or leads to, the effect."""
        member = [self._member] if self._member is not None else []
        return [self._absent, self._epochs.guard, *member]

    def join(
        self, guards: Sequence[Guard], ops: Sequence[Op]
    ) -> tuple[Sequence[Guard], Sequence[Op]]:
        """A commit that is the effect, or a step to it; one that was joined before as it is.

        Raises `EpochStaleError`.
        """
        if self.is_spent or self._absent in guards:
            return guards, ops
        self._epochs.check(self.mark.token, self.mark.ttl_s)
        held = [guard.key for guard in guards]
        joined = [*guards, *[guard for guard in self.own_guards if guard.key not in held]]
        is_record = self.derived is not None and not self.is_old
        if is_record or self._is_preparing or not self._is_last:
            return joined, ops
        return joined, [*ops, Put(self._key, self.value)]

    def committed(self) -> None:
        """A commit to which it was joined has been made."""
        self.is_spent = self._is_last and not self._is_preparing

    def begin_last(self) -> None:
        """The next commit is the last one: it leaves the record."""
        self._is_last = True

    @contextmanager
    def preparing(self) -> Generator[None]:
        """What is committed meanwhile leads to the effect, and is not the effect."""
        self._is_preparing = True
        try:
            yield
        finally:
            self._is_preparing = False

    def read_again(self) -> list[bytes]:
        """What is to be read anew after a lost race."""
        wanted = [self._key, keys.EPOCH]
        wanted += [self._member.key] if self._member is not None else []
        return [*wanted, self.derived.key] if self.derived is not None else wanted

    def look(self, found: Mapping[bytes, Item | None]) -> None:
        """Raise `AlreadyDone` for a record, or an object, that is there."""
        record = found.get(self._key)
        if record is not None:
            raise AlreadyDone(record.value, record.modified)
        if self.derived is not None:
            item = found.get(self.derived.key)
            if item is not None and self.derived.is_made(item.value):
                raise AlreadyDone(self.derived.id, item.modified)

    def check_on(self) -> None:
        """Raise what forbids another try: `EpochStaleError`, `AccessError`."""
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


@contextmanager
def aside() -> Generator[None]:
    """What is committed meanwhile is the server's own doing, not the effect of the request."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def preparing() -> Generator[None]:
    """What is committed meanwhile leads to the effect of the request, and is not the effect."""
    once = current()
    if once is None:
        yield
        return
    with once.preparing():
        yield


def derived_id() -> bytes:
    """The id that follows from the request at hand; empty where it is to be drawn."""
    once = current()
    return once.derived.id if once is not None and once.derived is not None else b""
