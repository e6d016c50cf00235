"""Reading every record of a store, and comparing those that must go together."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple

from colonist_server.backup.origin import Readable
from colonist_server.repo import keys
from colonist_server.repo.records import SCHEMA
from colonist_server.repo.soundness import fault, key_text, prefix_of
from colonist_server.store.interface import Item, Revision

_RESTORE: Final = "restore a backup"
_DROP: Final = "restore a backup, or give it up: colonist store drop {key}"
_PID: Final = slice(2, 2 + keys.PID_BYTES)
_WID: Final = slice(0, keys.WID_BYTES)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a key, and what to do."""

    key: str
    problem: str
    remedy: str


class Report(NamedTuple):
    """What was found at a revision; `kinds` counts keys by what they begin with."""

    revision: Revision
    kinds: Counter[str]
    size: int
    problems: list[Problem]


async def check(store: Readable, *, is_deep: bool = True) -> Report:
    """Read a whole store at one revision; not `is_deep`: count only. Raises `StoreError`.

    Of each process that is stored it holds the id meanwhile: 200 bytes for one that has ended.
    """
    looking = _Looking()
    revision = size = 0
    async with aclosing(store.snapshot()) as pages:
        async for page in pages:
            revision = page.revision
            for item in page.items:
                size += len(item.key) + len(item.value)
                looking.count(item)
                if is_deep:
                    looking.look(item)
    if is_deep:
        looking.compare()
    return Report(revision, looking.kinds, size, looking.problems)


class _Looking:
    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self._born: set[bytes] = set()
        self._live: set[bytes] = set()
        self._closed: set[bytes] = set()
        self._ended: set[bytes] = set()
        self._members: dict[bytes, bytes] = {}  # one key of each workflow that needs a head
        self._heads: set[bytes] = set()
        self._has_schema = False

    def count(self, item: Item) -> None:
        """Count it by its kind."""
        self.kinds[(prefix_of(item.key) or item.key).decode(errors="replace")] += 1

    def look(self, item: Item) -> None:
        """Read one record."""
        why = fault(item.key, item.value)
        if why:
            self._tell(item.key, why, _DROP)
        self._look_at_marks(item)
        self._note(item.key)

    def _look_at_marks(self, item: Item) -> None:
        if item.key == keys.SCHEMA:
            self._has_schema = True
            if item.value != str(SCHEMA).encode():
                self._tell(item.key, f"another schema than {SCHEMA}", "use the version of it")
        elif item.key == keys.RESTORING:
            self._tell(item.key, "a restore was not finished", "repeat `colonist restore`")

    def _note(self, key: bytes) -> None:
        match key[:2]:
            case keys.BIRTH:
                self._born.add(key[_PID])
            case keys.LIVE:
                self._live.add(key[_PID])
            case keys.CLOSED:
                self._closed.add(key[_PID])
            case keys.ENDED if len(key) > len(keys.ENDED) + keys.TAG_BYTES:
                if keys.kind_of_ended(key) == keys.KIND_PROCESS:
                    self._ended.add(key[-keys.PID_BYTES :])
            case keys.WORKFLOW:
                self._heads.add(key[2:])
            case _:
                if key.startswith((keys.SHAPE, keys.EDIT, keys.REQUEST)):
                    self._members.setdefault(key[3 : 3 + keys.WID_BYTES], key)

    def compare(self) -> None:
        """Compare what must go together."""
        for pid in sorted(self._live - self._born):
            self._tell(keys.live(pid), "it waits or runs, but was never submitted", _DROP)
        for pid in sorted(self._live & self._closed):
            self._tell(keys.live(pid), "it waits or runs, and has ended as well", _DROP)
        for pid in sorted(self._ended - self._closed):
            self._tell(keys.closed(pid), "it is listed as ended, but its end is missing", _RESTORE)
        for pid in sorted(self._closed - self._ended):
            self._tell(keys.closed(pid), "it has ended, but is not listed so", _DROP)
        for pid in sorted(self._born - self._live - self._closed):
            self._tell(keys.birth(pid), "it was submitted, but neither lives nor ended", _DROP)
        self._compare_workflows()
        if not self._has_schema:
            self._tell(keys.SCHEMA, "missing: no Colonist server wrote this", "check the address")

    def _compare_workflows(self) -> None:
        orphans = {pid[_WID]: keys.live(pid) for pid in self._live if keys.number_of(pid)}
        for wid, key in sorted((orphans | self._members).items()):
            if wid not in self._heads:
                self._tell(key, "it belongs to a workflow that is missing", _DROP)

    def _tell(self, key: bytes, problem: str, remedy: str) -> None:
        text = key_text(key)
        self.problems.append(Problem(text, problem, remedy.format(key=text)))
