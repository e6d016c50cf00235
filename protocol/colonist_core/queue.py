"""The queue of one colony: what waits, in the order in which it will run.

Order is priority time (COLONIES-RPC section 4.1), then id. Processes that ask for the same
thing share a *bucket*, so the cost of an assign is a look at the heads of the fitting buckets and
does not grow with the backlog. A process that names k executors stands in k buckets. What leaves
the queue otherwise than at a head is only marked; a bucket is swept when half of it is marks.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from heapq import merge
from typing import Final, Generic, Protocol, TypeVar

from colonist_core.matching import Placement, Profile, fits, has_room
from colonist_protocol.times import SECOND_NS

DAY_NS: Final = 86_400 * SECOND_NS
MAX_CLASSES: Final = 64

_BLOCK: Final = 512
_SWEEP_AT: Final = 64
_WALK: Final = 64


def priority_time(submitted_ns: int, priority: int) -> int:
    """One step of priority is one day of age (section 4.1)."""
    return submitted_ns - priority * DAY_NS


class Queued(Protocol):
    """What can stand in a queue. `ticket` belongs to the queue: 0 = does not stand in it."""

    priority_ns: int
    pid: bytes
    placement: Placement
    ticket: int


Q = TypeVar("Q", bound=Queued)
_Entry = tuple[int, bytes, int, Q]
_Place = tuple[str, str, str]
_Class = tuple[int, int]


class Queue(Generic[Q]):
    """Waiting processes of one colony."""

    __slots__ = ("_count", "_places", "_ticket")

    def __init__(self) -> None:
        self._places: dict[_Place, _Shelf[Q]] = {}
        self._ticket = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Q) -> None:
        """Put an item at its place in the order; it must not stand in a queue already."""
        self._ticket += 1
        self._count += 1
        item.ticket = self._ticket
        entry = (item.priority_ns, item.pid, item.ticket, item)
        for place in _places(item.placement):
            shelf = self._places.get(place)
            if shelf is None:
                shelf = self._places[place] = _Shelf()
            shelf.add(entry)

    def discard(self, item: Q) -> None:
        """Take an item out, if it stands here."""
        if not item.ticket:
            return
        item.ticket = 0
        self._count -= 1
        for place in _places(item.placement):
            shelf = self._places[place]
            if shelf.forget(item):
                del self._places[place]

    def first(self, offered: Profile) -> Q | None:
        """What this executor should run next."""
        best: _Entry[Q] | None = None
        for place in _offers(offered):
            shelf = self._places.get(place)
            entry = shelf.first(offered) if shelf is not None else None
            if entry is not None and (best is None or entry[:2] < best[:2]):
                best = entry
        return best[3] if best is not None else None

    def fitting(self, offered: Profile) -> Iterator[Q]:
        """What this executor may run, in order; what is not asked for is not looked at.

        The queue must not change meanwhile.
        """
        lines: list[Iterator[_Entry[Q]]] = []
        for place in _offers(offered):
            shelf = self._places.get(place)
            if shelf is not None:
                lines.extend(shelf.fitting(offered))
        return (entry[3] for entry in merge(*lines))

    def __iter__(self) -> Iterator[Q]:
        """All items in the order in which they will run; the queue must not change meanwhile."""
        last = 0
        for entry in merge(*(bucket for shelf in self._places.values() for bucket in shelf)):
            if entry[2] != last:  # what names k executors comes k times in a row
                last = entry[2]
                yield entry[3]


class _Shelf(Generic[Q]):
    """The buckets of one (type, name, location), by what they ask of CPU and memory."""

    __slots__ = ("_buckets", "_folded")

    def __init__(self) -> None:
        self._buckets: dict[_Class, _Bucket[Q]] = {}
        self._folded = False

    def add(self, entry: _Entry[Q]) -> None:
        key = self._class(entry[3].placement)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket()
        bucket.add(entry)
        if len(self._buckets) > MAX_CLASSES and not self._folded:
            self._fold()

    def forget(self, item: Q) -> bool:
        """Count an item as gone; True when the shelf is empty."""
        key = self._class(item.placement)
        if self._buckets[key].forget():
            del self._buckets[key]
        return not self._buckets

    def first(self, offered: Profile) -> _Entry[Q] | None:
        best: _Entry[Q] | None = None
        for (cpu, mem), bucket in self._buckets.items():
            if self._folded:
                if not has_room(_least(cpu), _least(mem), offered):
                    continue
                entry = bucket.first_fitting(offered)
            elif has_room(cpu, mem, offered):
                entry = bucket.head()
            else:
                continue
            if entry is not None and (best is None or entry[:2] < best[:2]):
                best = entry
        return best

    def fitting(self, offered: Profile) -> Iterator[Iterator[_Entry[Q]]]:
        """A line of entries for each bucket that has what fits."""
        for (cpu, mem), bucket in self._buckets.items():
            if not self._folded:
                if has_room(cpu, mem, offered):
                    yield bucket.walk()
            elif has_room(_least(cpu), _least(mem), offered):
                yield (entry for entry in bucket.walk() if fits(entry[3].placement, offered))

    def __iter__(self) -> Iterator[_Bucket[Q]]:
        return iter(self._buckets.values())

    def _class(self, wanted: Placement) -> _Class:
        if self._folded:
            return (wanted.cpu.bit_length(), wanted.mem.bit_length())
        return (wanted.cpu, wanted.mem)

    def _fold(self) -> None:
        entries = [entry for bucket in self for entry in bucket]
        self._folded = True
        self._buckets = {}
        for entry in entries:
            self.add(entry)


class _Bucket(Generic[Q]):
    """Entries in order, in blocks, so that an insertion moves few of them."""

    __slots__ = ("_blocks", "_live", "_marks", "_met")

    def __init__(self) -> None:
        self._blocks: list[list[_Entry[Q]]] = [[]]
        self._live = 0
        self._marks = 0
        self._met = 0
        """How many marks walks have met since they were last cleared away."""

    def add(self, entry: _Entry[Q]) -> None:
        self._live += 1
        blocks = self._blocks
        last = blocks[-1]
        if not last or entry > last[-1]:
            if len(last) >= _BLOCK:
                blocks.append([entry])
            else:
                last.append(entry)
            return
        index = self._block_of(entry)
        block = blocks[index]
        insort(block, entry)
        if len(block) > 2 * _BLOCK:
            blocks[index : index + 1] = [block[:_BLOCK], block[_BLOCK:]]

    def forget(self) -> bool:
        """One entry was marked; True when none is left."""
        self._live -= 1
        self._marks += 1
        if not self._live:
            return True
        if self._marks > self._live + _SWEEP_AT:
            self._rebuild()
        return False

    def head(self) -> _Entry[Q]:
        """The first entry; a bucket has one, or it is dropped. Marks before it are forgotten."""
        while True:
            block = self._blocks[0]
            for index, entry in enumerate(block):
                if entry[3].ticket == entry[2]:
                    if index:
                        del block[:index]
                        self._marks -= index
                    return entry
            self._marks -= len(block)
            del self._blocks[0]

    def first_fitting(self, offered: Profile) -> _Entry[Q] | None:
        """The first entry that fits; all of them may have to be looked at."""
        head = self.head()
        if fits(head[3].placement, offered):
            return head
        return next((entry for entry in self if fits(entry[3].placement, offered)), None)

    def walk(self) -> Iterator[_Entry[Q]]:
        """The entries in order, for who looks at the first few only.

        Those who take what is behind the head leave marks there; later walks do not meet them.
        """
        if self._met > _SWEEP_AT:
            self._clear_front()
        for block in self._blocks:
            for entry in block:
                if entry[3].ticket == entry[2]:
                    yield entry
                else:
                    self._met += 1

    def __iter__(self) -> Iterator[_Entry[Q]]:
        return (entry for block in self._blocks for entry in block if entry[3].ticket == entry[2])

    def _clear_front(self) -> None:
        """Forget the marks among the first entries, as many as walks look at."""
        kept: list[list[_Entry[Q]]] = []
        cleared = live = 0
        for block in self._blocks:
            if live >= _WALK:
                break
            left = [entry for entry in block if entry[3].ticket == entry[2]]
            self._marks -= len(block) - len(left)
            live += len(left)
            cleared += 1
            if left:
                kept.append(left)
        self._blocks[:cleared] = kept
        self._met = 0

    def _block_of(self, entry: _Entry[Q]) -> int:
        low, high = 0, len(self._blocks) - 1
        while low < high:
            middle = (low + high) // 2
            if self._blocks[middle][-1] < entry:
                low = middle + 1
            else:
                high = middle
        return low

    def _rebuild(self) -> None:
        entries = list(self)
        self._blocks = [entries[i : i + _BLOCK] for i in range(0, len(entries), _BLOCK)] or [[]]
        self._marks = 0


def _least(bits: int) -> int:
    """The smallest amount in a folded class."""
    return 1 << (bits - 1) if bits else 0


def _places(wanted: Placement) -> list[_Place]:
    names = wanted.names or ("",)
    return [(wanted.type, name, wanted.location) for name in names]


def _offers(offered: Profile) -> list[_Place]:
    places = [(offered.type, "", ""), (offered.type, offered.name, "")]
    if offered.location:
        places.append((offered.type, "", offered.location))
        places.append((offered.type, offered.name, offered.location))
    return places
