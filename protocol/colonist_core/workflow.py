"""Workflows: which processes wait for which, and what the end of one means to the others.

A workflow is a directed acyclic graph; its members are numbered from 1 in the order of their
specs. Everything here is linear in nodes plus edges, over the whole life of a graph. Nothing that
can be derived is kept elsewhere: a member may run when all of its parents succeeded, and is doomed
as soon as one of its ancestors failed or was cancelled (COLONIES-RPC W7: only descendants are).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from colonist_protocol.errors import ConflictError, InvalidValueError
from colonist_protocol.process import FINAL, State

MAX_SHOWN: Final = 20
MAX_EDGES: Final = 200_000
"""Dependencies of one workflow: each is an edge of the drawing that one reply holds."""
MAX_QUOTED: Final = 128
"""Characters of a name that a refusal repeats: names are not checked yet at that point."""

_STATES: Final = len(State)
_UNSEEN, _OPEN, _DONE = 0, 1, 2


class Part(NamedTuple):
    """A node as it is submitted: its name, and the names of those it waits for."""

    name: str
    parents: Sequence[str]


Parents = tuple[int, ...]


def resolve(parts: Sequence[Part]) -> list[Parents]:
    """The numbers of each node's parents.

    Raises `InvalidValueError` for no nodes, a name that is missing or stands twice, a dependency
    that does not exist, too many dependencies, and a cycle, which it names.
    """
    if not parts:
        raise InvalidValueError("Failed to submit workflow, it has no functionspecs")
    numbers: dict[str, int] = {}
    for number, part in enumerate(parts, 1):
        if not part.name:
            raise InvalidValueError("Nodename is missing, check function spec for errors")
        if numbers.setdefault(part.name, number) != number:
            raise InvalidValueError(f"Duplicate nodename: {part.name[:MAX_QUOTED]}")
    parents = [_numbers_of(part, numbers) for part in parts]
    _check_edges(sum(map(len, parents)))
    _check_acyclic(parts, parents)
    return parents


def _numbers_of(part: Part, numbers: dict[str, int]) -> Parents:
    for name in part.parents:
        if name not in numbers:
            raise InvalidValueError(
                "Failed to submit workflow, invalid dependencies, are you depending on a nodename "
                f"that does not exits? {part.name[:MAX_QUOTED]!r} depends on {name[:MAX_QUOTED]!r}"
            )
    return tuple(dict.fromkeys(numbers[name] for name in part.parents))


def _check_edges(count: int) -> None:
    if count > MAX_EDGES:
        raise InvalidValueError(f"a workflow has at most {MAX_EDGES} dependencies")


def _check_acyclic(parts: Sequence[Part], parents: Sequence[Parents]) -> None:
    marks = [_UNSEEN] * len(parts)
    for start in range(len(parts)):
        if marks[start] == _UNSEEN:
            _walk(parts, parents, marks, start)


def _walk(parts: Sequence[Part], parents: Sequence[Parents], marks: list[int], start: int) -> None:
    """Depth first from one node towards its ancestors; the path is what is open."""
    path = [(start, iter(parents[start]))]
    marks[start] = _OPEN
    while path:
        node, rest = path[-1]
        for number in rest:
            parent = number - 1
            if marks[parent] == _OPEN:
                raise InvalidValueError(_cycle(parts, [each for each, _ in path], parent))
            if marks[parent] == _UNSEEN:
                marks[parent] = _OPEN
                path.append((parent, iter(parents[parent])))
                break
        else:
            marks[node] = _DONE
            path.pop()


def _cycle(parts: Sequence[Part], path: Sequence[int], again: int) -> str:
    round_ = [parts[node].name[:MAX_QUOTED] for node in path[path.index(again) :]]
    shown = round_ if len(round_) <= MAX_SHOWN else [*round_[:MAX_SHOWN], "..."]
    return "Failed to submit workflow, it has a cycle: " + " waits for ".join([*shown, round_[0]])


class Change(NamedTuple):
    """What the end of a member changed: numbers of those that may run now, and of the doomed."""

    released: list[int]
    doomed: list[int]


class Graph:
    """The members of one workflow: who waits for whom, and in which state each is."""

    __slots__ = (
        "_children",
        "_counts",
        "_doomed_by",
        "_edges",
        "_missing",
        "_parents",
        "_pending_doom",
        "_states",
        "ended_ns",
        "is_cancelled",
        "ready_ns",
    )

    def __init__(self, parents: Sequence[Parents]) -> None:
        self._parents: list[Parents] = [(), *parents]
        self._children: dict[int, list[int]] = {}
        for number, numbers in enumerate(parents, 1):
            for parent in numbers:
                self._children.setdefault(parent, []).append(number)
        self._missing = [len(numbers) for numbers in self._parents]
        self._edges = sum(self._missing)
        self._states = bytearray(len(self._parents))
        self._counts = [0] * _STATES
        self._counts[State.WAITING] = len(parents)
        self._doomed_by: dict[int, int] = {}
        self._pending_doom = 0
        self.ready_ns: dict[int, int] = {}
        """When the last parent of a member that waits ended, of those that ended so far."""
        self.ended_ns = 0
        """When the member that ended last did; 0: none has."""
        self.is_cancelled = False

    def __len__(self) -> int:
        return len(self._parents) - 1

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, len(self._parents)))

    # -- what it looks like

    def parents(self, number: int) -> Parents:
        """Whom a member waits for."""
        return self._parents[number]

    def children(self, number: int) -> Sequence[int]:
        """Who waits for a member."""
        return self._children.get(number, ())

    @property
    def roots(self) -> list[int]:
        """Those who wait for nobody."""
        return [number for number in self if not self._parents[number]]

    @property
    def leaves(self) -> list[int]:
        """Those for whom nobody waits."""
        return [number for number in self if not self._children.get(number)]

    def depths(self) -> list[int]:
        """The longest way from a root to each member, from 0; index 0 stands for nothing."""
        depths = [0] * len(self._parents)
        missing = [len(numbers) for numbers in self._parents]
        front = self.roots
        for number in front:  # grows while it is walked
            for child in self.children(number):
                depths[child] = max(depths[child], depths[number] + 1)
                missing[child] -= 1
                if not missing[child]:
                    front.append(child)
        return depths

    # -- states

    def stored_state(self, number: int) -> State:
        """A member's state as its record has it."""
        return State(self._states[number])

    def state_of(self, number: int) -> State:
        """A member's state as it is shown: what is doomed has failed already."""
        state = State(self._states[number])
        if state in FINAL:
            return state
        if self.is_cancelled:
            return State.CANCELLED
        return State.FAILED if number in self._doomed_by else state

    @property
    def state(self) -> State:
        """The sum of its members (COLONIES-RPC section 4.7), final only when all of them are."""
        if self.is_cancelled:
            return State.CANCELLED
        final = self._final
        if final + self._pending_doom < len(self) or not len(self):
            is_begun = self._counts[State.RUNNING] or final
            return State.RUNNING if is_begun else State.WAITING
        if self._counts[State.FAILED] or self._doomed_by:
            return State.FAILED
        return State.CANCELLED if self._counts[State.CANCELLED] else State.SUCCESS

    @property
    def is_over(self) -> bool:
        """Whether every member's record is final; never before the members are known."""
        return 0 < len(self) == self._final

    @property
    def _final(self) -> int:
        return len(self) - self._counts[State.WAITING] - self._counts[State.RUNNING]

    @property
    def has_unfinished(self) -> bool:
        """Whether `unfinished` has anything."""
        return bool(self._pending_doom) or (self.is_cancelled and not self.is_over)

    @property
    def states(self) -> bytes:
        """The stored states of all members, a byte each."""
        return bytes(self._states[1:])

    def may_run(self, number: int) -> bool:
        """Whether all parents succeeded and nothing stands against it."""
        return not (self._missing[number] or self.is_cancelled or number in self._doomed_by)

    def waits_for_parents(self, number: int) -> bool:
        """Whether it stands still because a parent is unfinished."""
        return bool(self._missing[number]) and self.state_of(number) == State.WAITING

    def has_inputs(self, number: int) -> bool:
        """Whether all of its parents succeeded, and it has some."""
        return bool(self._parents[number]) and not self._missing[number]

    def doomed_by(self, number: int) -> int:
        """The member whose end doomed this one; 0: none."""
        return self._doomed_by.get(number, 0)

    def unfinished(self) -> list[int]:
        """Those to be ended now: all that is not final of a cancelled graph, else the doomed."""
        numbers = self if self.is_cancelled else list(self._doomed_by)
        return [number for number in numbers if State(self._states[number]) not in FINAL]

    def restore(self, states: bytes) -> None:
        """Take over all members' states at once, as `states` gave them."""
        self._states[1:] = states
        self._counts = [states.count(state) for state in State]

    def moved(self, number: int, state: State) -> None:
        """A member was assigned, or put back into the queue. One that has ended stays so."""
        before = State(self._states[number])
        if before not in FINAL and before != state:
            self._set(number, before, state)

    def ended(self, number: int, state: State, ended_ns: int) -> Change:
        """A member ended; hearing it twice changes nothing."""
        before = State(self._states[number])
        if before in FINAL:
            return Change([], [])
        self._set(number, before, state)
        self._pending_doom -= number in self._doomed_by
        self.ended_ns = max(self.ended_ns, ended_ns)
        if state == State.SUCCESS:
            return Change(self._release(number, ended_ns), [])
        return Change([], self._doom(number))

    def _set(self, number: int, before: State, state: State) -> None:
        self._counts[before] -= 1
        self._counts[state] += 1
        self._states[number] = state

    def _release(self, number: int, ended_ns: int) -> list[int]:
        released: list[int] = []
        for child in self.children(number):
            self._missing[child] -= 1
            self.ready_ns[child] = max(self.ready_ns.get(child, 0), ended_ns)
            if self.may_run(child):
                released.append(child)
        return released

    def _doom(self, number: int) -> list[int]:
        """Everything below a member that did not succeed; each member is doomed once only."""
        doomed: list[int] = []
        front = [number]
        for each in front:  # grows while it is walked
            for child in self.children(each):
                if child not in self._doomed_by and State(self._states[child]) not in FINAL:
                    self._doomed_by[child] = number
                    doomed.append(child)
                    front.append(child)
        self._pending_doom += len(doomed)
        return doomed

    # -- growing: always below a member that has not ended

    def insert(self, parent: int) -> int:
        """Add a member between another and all of its children; its number."""
        number = self._add(parent)
        children = self._children[parent][:-1]
        for child in children:
            self._parents[child] = tuple(
                number if each == parent else each for each in self._parents[child]
            )
        self._children[number] = children
        self._children[parent] = [number]
        return number

    def append(self, parent: int, child: int = 0) -> int:
        """Add a member below another, and perhaps above a third; its number.

        Whoever decides on it asks `check_may_wait` first. Here it has happened: a child that was
        doomed at the same moment stays so.
        """
        number = self._add(parent)
        if child:
            self._children[number] = [child]
            self._parents[child] = (*self._parents[child], number)
            self._missing[child] += 1
            self._edges += 1
        return number

    def check_may_wait(self, number: int) -> None:
        """Raise `ConflictError` unless a member can be made to wait for one more parent."""
        if self.state_of(number) != State.WAITING:
            raise ConflictError("the child process is running or has ended: it cannot wait")

    def check_may_grow(self) -> None:
        """Raise `InvalidValueError` unless one more member may have a parent and a child."""
        _check_edges(self._edges + 2)

    def _add(self, parent: int) -> int:
        number = len(self._parents)
        self._edges += 1
        self._parents.append((parent,))
        self._children.setdefault(parent, []).append(number)
        self._missing.append(1)
        self._states.append(State.WAITING)
        self._counts[State.WAITING] += 1
        return number
