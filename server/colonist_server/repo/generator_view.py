"""What this node believes of generators: definitions, firings, and which arguments wait.

Of a waiting argument only its key and revision are held; values are read when it is consumed. An
argument that a firing under way names is taken: it does not count, and comes back only if that
firing is given up. Order of arrival = (revision of creation, key), the same at every node.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

from colonist_server.repo import keys
from colonist_server.repo.records import (
    FiringRecord,
    FiringsRecord,
    GeneratorRecord,
    decode_firing,
    decode_firings,
    decode_generator,
)
from colonist_server.repo.view import View
from colonist_server.store.interface import Revision

_GID: Final = slice(3, 3 + keys.PID_BYTES)
_REST: Final = slice(3 + keys.PID_BYTES, None)
_NEVER: Final = FiringsRecord()
_FIRST: Final = (0, b"")


class UnderWay(NamedTuple):
    """A firing that takes several commits."""

    record: FiringRecord
    revision: Revision


class Generator:
    """One generator. `record` is None where only remains of a removed one are left."""

    __slots__ = (
        "_last",
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
        self.firings = _NEVER
        self.firings_revision: Revision = 0
        self._last: tuple[Revision, bytes] | None = _FIRST
        """The argument that arrived last; None: those that wait are not in order."""
        self.waiting: dict[bytes, Revision] = {}
        """By the suffix of its key: when an argument was stored."""
        self.taken: dict[bytes, Revision] = {}
        """Likewise, of those that a firing under way names; 0: deleted, or not seen yet."""
        self.under_way: dict[int, UnderWay] = {}

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

    def add(self, suffix: bytes, revision: Revision) -> None:
        """An argument waits."""
        self.waiting[suffix] = revision
        if self._last is not None:  # they come in order nearly always: no sorting then
            self._last = (revision, suffix) if (revision, suffix) > self._last else None

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


class GeneratorView:
    """All generators, by id, oldest first in each colony."""

    __slots__ = ("_changed", "all", "by_tag", "names", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.all: dict[bytes, Generator] = {}
        self.by_tag: dict[bytes, dict[bytes, Generator]] = {}
        self.names: dict[bytes, tuple[bytes, Revision]] = {}
        self._changed: Callable[[Generator], None] = _nobody
        # In this order they are loaded: arguments that a firing names do not count for a moment.
        view.hold(keys.GENERATOR, self._apply_definition, self._held_definitions)
        view.hold(keys.GENERATOR_NAME, self._apply_name, lambda: set(self.names))
        view.hold(keys.FIRINGS, self._apply_firings, self._held_firings)
        view.hold(keys.FIRING, self._apply_firing, self._held_under_way)
        view.hold(keys.ARGUMENT, self._apply_argument, self._held_arguments)

    def listen(self, changed: Callable[[Generator], None]) -> None:
        """Tell somebody of every generator that changed, in the middle of the change."""
        self._changed = changed

    def find(self, gid: bytes) -> Generator | None:
        """A generator, if there is one of that id."""
        found = self.all.get(gid)
        return found if found is not None and found.record is not None else None

    def named(self, tag: bytes, name: str) -> Generator | None:
        """A generator by name."""
        entry = self.names.get(keys.generator_name(tag, name))
        return self.find(entry[0]) if entry is not None else None

    def of(self, tag: bytes) -> list[Generator]:
        """The generators of a colony, oldest first."""
        return [each for each in self.by_tag.get(tag, {}).values() if each.record is not None]

    # -- what is stored

    def _apply_argument(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_GID])
        suffix = key[_REST]
        if suffix in generator.taken:
            _apply_taken(generator.taken, suffix, revision if value is not None else -revision)
        elif value is None:
            if generator.waiting.get(suffix, 0) <= revision:
                generator.waiting.pop(suffix, None)
        elif suffix not in generator.waiting:  # it is never written again
            generator.add(suffix, revision)
        self._told(generator)

    def _apply_definition(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[len(keys.GENERATOR) :])
        if generator.revision < revision:
            generator.revision = revision
            generator.record = decode_generator(value) if value is not None else None
        self._told(generator)

    def _apply_firings(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_GID])
        if generator.firings_revision < revision:
            generator.firings = decode_firings(value) if value is not None else _NEVER
            generator.firings_revision = revision if value is not None else 0
        self._told(generator)

    def _apply_firing(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_GID])
        number = int.from_bytes(key[_REST], "big")
        before = generator.under_way.get(number)
        if before is None or before.revision < revision:
            if before is not None:
                _release(generator, before.record)
                del generator.under_way[number]
            if value is not None:
                record = decode_firing(value)
                generator.under_way[number] = UnderWay(record, revision)
                for suffix in record.suffixes:
                    generator.taken[suffix] = generator.waiting.pop(suffix, 0)
        self._told(generator)

    def _apply_name(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        before = self.names.get(key)
        if before is not None and before[1] >= revision:
            return
        if value is not None:
            self.names[key] = (value, revision)
        else:
            self.names.pop(key, None)

    def _at(self, gid: bytes) -> Generator:
        generator = self.all.get(gid)
        if generator is None:
            generator = self.all[gid] = Generator(gid)
            self.by_tag.setdefault(gid[: keys.TAG_BYTES], {})[gid] = generator
        return generator

    def _told(self, generator: Generator) -> None:
        if generator.record is None and not generator.has_remains:
            self.all.pop(generator.gid, None)
            siblings = self.by_tag.get(generator.tag, {})
            siblings.pop(generator.gid, None)
            if not siblings:
                self.by_tag.pop(generator.tag, None)
        else:
            self._changed(generator)

    # -- the keys of what is held

    def _held_definitions(self) -> set[bytes]:
        return {keys.generator(gid) for gid, each in self.all.items() if each.record is not None}

    def _held_firings(self) -> set[bytes]:
        return {keys.firings(gid) for gid, each in self.all.items() if each.firings_revision}

    def _held_under_way(self) -> set[bytes]:
        return {
            keys.firing(gid, number) for gid, each in self.all.items() for number in each.under_way
        }

    def _held_arguments(self) -> set[bytes]:
        return {
            keys.argument(gid, suffix)
            for gid, each in self.all.items()
            for held in (each.waiting, each.taken)
            for suffix, revision in held.items()
            if revision
        }


def _release(generator: Generator, record: FiringRecord) -> None:
    """What a firing had taken and did not delete waits again."""
    for suffix in record.suffixes:
        revision = generator.taken.pop(suffix, 0)
        if revision:
            generator.add(suffix, revision)


def _apply_taken(taken: dict[bytes, Revision], suffix: bytes, revision: Revision) -> None:
    """A taken argument was found to be stored, or (negative) deleted, at a revision."""
    if revision > 0:
        taken[suffix] = taken[suffix] or revision
    elif taken[suffix] <= -revision:
        taken[suffix] = 0


def _nobody(generator: Generator) -> None:
    """Before anybody listens."""
    del generator
