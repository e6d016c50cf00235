"""The nodes at work on one store, as this one knows them by their records (`n/node`).

A node's record stands under a lease and is written each second; when it vanishes the node is taken
for dead, unless the record said before that it leaves. On a store that is not shared there is this
node alone, and its key is only the mark of a start without an end, of which nobody is told here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.records import NodeRecord, decode_node
from colonist_server.repo.view import View
from colonist_server.store.interface import Revision

OFFSETS: Final = 5
"""So many looks at another node's clock count; what is late makes its clock look slow, never fast,
so the largest offset is nearest to the truth."""

SKEW_NS: Final = 5 * SECOND_NS
"""Clocks may be so far apart."""

NodeChanged = Callable[[str, bool], None]
"""Told of a node's name, and whether it is alive from now on: no awaits."""


class Node:
    """Another node: its newest record, and how far its clock was ahead of ours."""

    __slots__ = ("_offsets", "name", "record", "revision")

    def __init__(self, name: str, record: NodeRecord, revision: Revision) -> None:
        self.name = name
        self.record = record
        self.revision = revision
        self._offsets: deque[int] = deque(maxlen=OFFSETS)

    @property
    def is_alive(self) -> bool:
        """Whether it is at work, and goes on."""
        return not self.record.is_leaving

    @property
    def offset_ns(self) -> int | None:
        """How far its clock is ahead of ours; None until that is known.

        The first look does not count: a record that was loaded may have stood there for long.
        """
        return max(self._offsets) if len(self._offsets) > 1 else None

    @property
    def least_offset_ns(self) -> int:
        """How far its clock is ahead of ours at least."""
        return max(self._offsets, default=0)

    def seen(self, offset_ns: int) -> None:
        """Its clock was read."""
        self._offsets.append(offset_ns)


class Nodes:
    """Who else is at work; `name` and `instance` are this node's own."""

    __slots__ = (
        "_clock",
        "_crashed",
        "_interested",
        "_key",
        "_listeners",
        "_others",
        "_own",
        "_own_revision",
        "instance",
        "name",
    )

    def __init__(self, view: View, clock: Clock, *, name: str, instance: bytes) -> None:
        self.name = name
        self.instance = instance
        self._clock = clock
        self._key = keys.node(name)
        self._own: NodeRecord | None = None
        self._own_revision: Revision = 0
        self._others: dict[str, Node] = {}
        self._interested: dict[tuple[bytes, str], tuple[str, ...]] = {}
        self._listeners: list[NodeChanged] = []
        self._crashed: list[Callable[[Node], None]] = []
        view.hold(keys.NODE, self._apply, self._held)

    def others(self) -> list[Node]:
        """The other nodes that are at work."""
        return [node for node in self._others.values() if node.is_alive]

    def interested(self, tag: bytes, type: str) -> tuple[str, ...]:
        """The names of other nodes where executors of a type wait for work of a colony."""
        return self._interested.get((tag, type), ())

    def is_alive(self, name: str) -> bool:
        """Whether a node of that name is at work; this one is."""
        node = self._others.get(name)
        return name == self.name or (node is not None and node.is_alive)

    def is_at_work(self, instance: bytes) -> bool:
        """Whether the very start of a node that has this mark is at work still."""
        if instance == self.instance:
            return True
        return any(node.record.instance == instance for node in self.others())

    def offset_ns(self, name: str) -> int:
        """How far a node's clock is ahead of ours, as far as is known; rather less than more.

        Clocks that are further off than `SKEW_NS` are a fault of their nodes.
        """
        node = self._others.get(name)
        return min(max(node.least_offset_ns, -SKEW_NS), SKEW_NS) if node is not None else 0

    def clock_lead_ns(self, *, is_leader: bool) -> int:
        """How far this node's clock is ahead of the others'; negative: behind.

        Of several others the one in the middle counts, so a single bad clock is a fault of its own
        node only. Of two nodes nobody can say whose is wrong: the leader's is taken for right.
        """
        offsets = sorted(node.offset_ns for node in self.others() if node.offset_ns is not None)
        if not offsets or (is_leader and len(offsets) == 1):
            return 0
        middle = offsets[(len(offsets) - 1) // 2 : len(offsets) // 2 + 1]
        return -min(middle, key=abs)

    @property
    def is_outvoted(self) -> bool:
        """Whether most of all nodes agree on the time, and this one's clock is off from theirs."""
        offsets = sorted(node.offset_ns for node in self.others() if node.offset_ns is not None)
        if not offsets:
            return False
        middle = offsets[len(offsets) // 2]
        agreeing = sum(abs(offset - middle) <= SKEW_NS for offset in offsets)
        return abs(middle) > SKEW_NS and 2 * agreeing > len(offsets) + 1

    @property
    def are_clocks_apart(self) -> bool:
        """Whether another node's clock differs from ours by more than it may, whoever is wrong."""
        return any(abs(node.offset_ns or 0) > SKEW_NS for node in self.others())

    @property
    def is_name_taken(self) -> bool:
        """Whether another server has put itself in this one's place."""
        return self._own is not None and self._own.instance != self.instance

    def listen(self, changed: NodeChanged) -> None:
        """Tell somebody of other nodes that come and go."""
        self._listeners.append(changed)

    def listen_to_crashes(self, crashed: Callable[[Node], None]) -> None:
        """Tell somebody of other nodes that went without a word: no awaits."""
        self._crashed.append(crashed)

    # -- what the store has

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        record = decode_node(value) if value else None
        if key == self._key:
            self._apply_own(record, revision)
            return
        name = keys.name_of_node(key)
        node = self._others.get(name)
        if node is not None and node.revision >= revision:
            return
        if node is not None and (record is None or node.record.instance != record.instance):
            self._end(node)
        if record is not None:
            self._put(name, record, revision)

    def _apply_own(self, record: NodeRecord | None, revision: Revision) -> None:
        if revision > self._own_revision:
            self._own, self._own_revision = record, revision

    def _put(self, name: str, record: NodeRecord, revision: Revision) -> None:
        node = self._others.get(name)
        was_alive = node is not None and node.is_alive
        if node is None:
            node = self._others[name] = Node(name, record, revision)
        node.record, node.revision = record, revision
        node.seen(record.clock_ns - self._clock.now_ns())
        self._look_at_interest()
        if node.is_alive != was_alive:
            self._tell(name, is_alive=node.is_alive)

    def _end(self, node: Node) -> None:
        del self._others[node.name]
        self._look_at_interest()
        if node.is_alive:
            self._tell(node.name, is_alive=False)
            for crashed in self._crashed:
                crashed(node)

    def _tell(self, name: str, *, is_alive: bool) -> None:
        for changed in self._listeners:
            changed(name, is_alive)

    def _look_at_interest(self) -> None:
        found: dict[tuple[bytes, str], list[str]] = {}
        for node in self.others():
            for kind in node.record.classes:
                found.setdefault(kind, []).append(node.name)
        self._interested = {kind: tuple(sorted(names)) for kind, names in found.items()}

    def _held(self) -> set[bytes]:
        own = {self._key} if self._own is not None else set[bytes]()
        return own | {keys.node(name) for name in self._others}
