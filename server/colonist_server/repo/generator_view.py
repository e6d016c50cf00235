"""All generators as this node believes them to be, fed by its own commits and by the watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from colonist_server.repo import keys
from colonist_server.repo.generator import NEVER, Generator
from colonist_server.repo.records import decode_firing, decode_firings, decode_generator
from colonist_server.repo.view import View
from colonist_server.store.interface import Revision

_DEFINITION_GID: Final = slice(len(keys.GENERATOR), None)
_GID: Final = slice(len(keys.ARGUMENT), len(keys.ARGUMENT) + keys.PID_BYTES)
_REST: Final = slice(len(keys.ARGUMENT) + keys.PID_BYTES, None)


class GeneratorView:
    """All generators, by id; `by_tag` has those of each colony, oldest first."""

    __slots__ = ("_arguments", "_changed", "all", "by_tag", "names", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.all: dict[bytes, Generator] = {}
        self.by_tag: dict[bytes, dict[bytes, Generator]] = {}
        self.names: dict[bytes, tuple[bytes, Revision]] = {}
        self._arguments: dict[bytes, int] = {}
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

    def arguments(self, tag: bytes) -> int:
        """How many arguments are packed in a colony's generators."""
        return self._arguments.get(tag, 0)

    # -- what is stored

    def _apply_argument(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_GID])
        if value is not None:
            generator.stored(key[_REST], revision)
        else:
            generator.deleted(key[_REST], revision)
        self._told(generator)

    def _apply_definition(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_DEFINITION_GID])
        if generator.revision < revision:
            generator.revision = revision
            generator.record = decode_generator(value) if value is not None else None
        self._told(generator)

    def _apply_firings(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_GID])
        if generator.firings_revision < revision:
            generator.firings = decode_firings(value) if value is not None else NEVER
            generator.firings_revision = revision if value is not None else 0
        self._told(generator)

    def _apply_firing(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        generator = self._at(key[_GID])
        number = int.from_bytes(key[_REST], "big")
        before = generator.under_way.get(number)
        if before is None or before.revision < revision:
            if before is not None:
                generator.ended(number)
            if value is not None:
                generator.begun(number, decode_firing(value), revision)
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
            self.by_tag.setdefault(generator.tag, {})[gid] = generator
        return generator

    def _told(self, generator: Generator) -> None:
        self._count(generator)
        if generator.record is not None or generator.has_remains:
            self._changed(generator)
        elif self.all.pop(generator.gid, None) is not None:
            siblings = self.by_tag[generator.tag]
            del siblings[generator.gid]
            if not siblings:
                del self.by_tag[generator.tag]

    def _count(self, generator: Generator) -> None:
        change = generator.held - generator.counted
        if change:
            generator.counted += change
            count = self._arguments[generator.tag] = self.arguments(generator.tag) + change
            if not count:
                del self._arguments[generator.tag]

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


def _nobody(generator: Generator) -> None:
    """Before anybody listens."""
    del generator
