"""One generator as this node knows it: its definition, its firings, and which arguments wait.

Of a waiting argument only its key's suffix and its revision are held; values are read when it is
consumed. An argument that a firing under way names is taken: it does not count, and comes back only
if that firing is given up. Order of arrival = (revision of creation, key), the same at every node.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, NamedTuple

from colonist_protocol.errors import NotFoundError
from colonist_server.repo import keys
from colonist_server.repo.records import FiringRecord, FiringsRecord, GeneratorRecord
from colonist_server.store.interface import Revision

NEVER: Final = FiringsRecord()

_FIRST: Final = (0, b"")


class UnderWay(NamedTuple):
    """A firing that takes several commits."""

    record: FiringRecord
    revision: Revision


class Generator:
    """One generator. `record` is None where only remains of a removed one are left."""

    __slots__ = (
        "_last",
        "counted",
        "firings",
        "firings_revision",
        "gid",
        "record",
        "revision",
        "taken",
        "under_way",
        "waiting",
    )

    def __init__(self, gid: bytes) -> None:
        self.gid = gid
        self.record: GeneratorRecord | None = None
        self.revision: Revision = 0
        self.firings = NEVER
        self.firings_revision: Revision = 0
        self.waiting: dict[bytes, Revision] = {}
        """By the suffix of its key: when an argument was stored."""
        self.taken: dict[bytes, Revision] = {}
        """Likewise, of those that a firing under way names; 0: deleted, or not seen yet."""
        self.under_way: dict[int, UnderWay] = {}
        self.counted = 0
        """How many of its arguments are counted as its colony's."""
        self._last: tuple[Revision, bytes] | None = _FIRST
        """The argument that arrived last; None: those that wait are not in order."""

    @property
    def definition(self) -> GeneratorRecord:
        """What it is. Raises `NotFoundError` once it is removed."""
        if self.record is None:
            raise NotFoundError("the generator was removed meanwhile")
        return self.record

    @property
    def tag(self) -> bytes:
        """The tag of its colony."""
        return self.gid[: keys.TAG_BYTES]

    @property
    def id(self) -> str:
        """The id on the wire."""
        return self.gid.hex()

    @property
    def is_at_work(self) -> bool:
        """Whether it is there, and not disabled."""
        return self.record is not None and not self.record.disabled

    @property
    def held(self) -> int:
        """How many arguments this node holds in memory."""
        return len(self.waiting) + len(self.taken)

    @property
    def has_remains(self) -> bool:
        """Whether anything is stored beside the definition."""
        return bool(self.firings_revision or self.waiting or self.taken or self.under_way)

    def ready(self, due: bytes | None = None) -> int:
        """How many arguments the next firing takes; 0: none is to be made.

        `due`: the suffix of an argument whose time is over, if it waits still.
        """
        record = self.record
        if record is None or record.disabled:
            return 0
        count = len(self.waiting)
        if count >= record.trigger:
            return record.trigger
        return count if due in self.waiting else 0

    def first(self, count: int) -> list[bytes]:
        """The suffixes of the arguments that arrived first, in order of arrival."""
        if self._last is None:
            order = sorted((revision, suffix) for suffix, revision in self.waiting.items())
            self.waiting = {suffix: revision for revision, suffix in order}
            self._last = order[-1] if order else _FIRST
        return list(islice(self.waiting, count))

    def first_pack_ns(self) -> int:
        """When the first argument ever came; 0: none did."""
        if self.firings.first_pack_ns or not self.waiting:
            return self.firings.first_pack_ns
        return keys.time_of_argument(min(self.waiting))

    # -- what the store has

    def stored(self, suffix: bytes, revision: Revision) -> None:
        """An argument was found to be stored at a revision; it is never written again."""
        if suffix in self.taken:
            self.taken[suffix] = self.taken[suffix] or revision
        elif suffix not in self.waiting:
            self._wait(suffix, revision)

    def deleted(self, suffix: bytes, revision: Revision) -> None:
        """An argument was found to be gone at a revision."""
        if suffix in self.taken:
            if self.taken[suffix] <= revision:
                self.taken[suffix] = 0
        elif self.waiting.get(suffix, revision) <= revision:
            self.waiting.pop(suffix, None)

    def begun(self, number: int, record: FiringRecord, revision: Revision) -> None:
        """A firing in steps has taken its arguments."""
        self.under_way[number] = UnderWay(record, revision)
        for suffix in record.suffixes:
            self.taken[suffix] = self.waiting.pop(suffix, 0)

    def ended(self, number: int) -> None:
        """A firing in steps is over: what it did not delete waits again."""
        for suffix in self.under_way.pop(number).record.suffixes:
            revision = self.taken.pop(suffix, 0)
            if revision:
                self._wait(suffix, revision)

    def _wait(self, suffix: bytes, revision: Revision) -> None:
        self.waiting[suffix] = revision
        if self._last is not None:  # they come in order nearly always: no sorting then
            self._last = (revision, suffix) if (revision, suffix) > self._last else None
