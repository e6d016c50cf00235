"""Workflows: which members may run, which are doomed, and how a graph grows; all in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from colonist_core import workflow as core
from colonist_core.workflow import Graph, Parents, Part, resolve
from colonist_protocol.errors import ConflictError, InvalidValueError
from colonist_protocol.process import FINAL, State

MANY = 10_000
ENDS = (State.SUCCESS, State.FAILED, State.CANCELLED)


def parts(nodes: dict[str, list[str]]) -> list[Part]:
    return [Part(name, parents) for name, parents in nodes.items()]


# -- reading what was submitted


def test_dependencies_become_numbers_in_the_order_in_which_they_were_named():
    nodes = {"a": [], "b": ["a"], "c": ["b", "a", "b"], "d": []}
    assert resolve(parts(nodes)) == [(), (1,), (2, 1), ()]


def test_a_workflow_has_a_limited_number_of_edges(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(core, "MAX_EDGES", 4)
    nodes = {"a": [], "b": ["a", "a"], "c": ["a", "b"], "d": ["a"]}
    assert len(resolve(parts(nodes))) == 4
    with pytest.raises(InvalidValueError, match="a workflow has at most 4 dependencies"):
        resolve(parts({**nodes, "e": ["a"]}))


def test_a_graph_that_grows_keeps_to_the_number_of_edges(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(core, "MAX_EDGES", 6)
    graph = Graph([(), (1,)])  # one
    graph.check_may_grow()
    graph.insert(1)  # two
    graph.append(1, 2)  # four
    graph.check_may_grow()
    graph.append(1)
    with pytest.raises(InvalidValueError, match="a workflow has at most 6 dependencies"):
        graph.check_may_grow()
    assert sum(len(graph.parents(number)) for number in graph) == 5


def test_a_node_may_depend_on_one_that_comes_later():
    assert resolve(parts({"a": ["b"], "b": []})) == [(2,), ()]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "Failed to submit workflow, it has no functionspecs"),
        ([Part("", [])], "Nodename is missing, check function spec for errors"),
        ([Part("a", []), Part("a", [])], "Duplicate nodename: a"),
        ([Part("a", ["b"])], "'a' depends on 'b'"),
        ([Part("a", ["a"])], "it has a cycle: a waits for a"),
        (
            [Part("x", ["a"]), Part("a", ["b"]), Part("b", ["c"]), Part("c", ["a"])],
            "it has a cycle: a waits for b waits for c waits for a",
        ),
    ],
)
def test_what_is_no_workflow_is_refused_with_its_reason(nodes, said):
    with pytest.raises(InvalidValueError, match=re.escape(said)):
        resolve(nodes)


def test_a_long_cycle_is_named_in_part():
    nodes = {f"n{each}": [f"n{(each + 1) % MANY}"] for each in range(MANY)}
    with pytest.raises(InvalidValueError, match=r"n19 waits for \.\.\. waits for n0$"):
        resolve(parts(nodes))


@given(st.data())
def test_a_cycle_that_is_named_is_one_and_what_has_none_is_taken(data):
    size = data.draw(st.integers(1, 12))
    parents = st.lists(st.integers(0, size - 1), max_size=3)
    nodes = {f"n{each}": [f"n{other}" for other in data.draw(parents)] for each in range(size)}
    try:
        found = resolve(parts(nodes))
    except InvalidValueError as error:
        named = str(error).split("cycle: ")[1].split(" waits for ")
        assert named[0] == named[-1]
        assert all(parent in nodes[name] for name, parent in pairwise(named))
    else:
        assert [sorted(each) for each in found] == [
            sorted({int(name[1:]) + 1 for name in names}) for names in nodes.values()
        ]
        assert _order(found)


def _order(parents: Sequence[Parents]) -> list[int]:
    """An order in which all may run; empty where there is none."""
    done: list[int] = []
    while len(done) < len(parents):
        free = [
            number
            for number, numbers in enumerate(parents, 1)
            if number not in done and set(numbers) <= set(done)
        ]
        if not free:
            return []
        done += free
    return done


# -- linear time, counted in steps


SHAPES = {
    "chain": [(), *((number,) for number in range(1, MANY))],
    "chain backwards": [*((number,) for number in range(2, MANY + 1)), ()],
    "fan out": [(), *((1,) for _ in range(1, MANY))],
    "fan in": [*(() for _ in range(1, MANY)), tuple(range(1, MANY))],
    "layers": [
        tuple(range(layer * 10 - 9, layer * 10 + 1)) if layer else ()
        for layer in range(MANY // 10)
        for _ in range(10)
    ],
}


class Counted(list[int]):
    """A list of children that counts how often one of them is looked at."""

    steps = 0

    def __iter__(self) -> Iterator[int]:
        for each in super().__iter__():
            Counted.steps += 1
            yield each


def counted(parents: Sequence[Parents]) -> Graph:
    graph = Graph(parents)
    graph._children = {number: Counted(each) for number, each in graph._children.items()}
    Counted.steps = 0
    return graph


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_is_looked_through_once(shape, monkeypatch):
    """10 000 nodes, no recursion, and each edge is followed once only."""
    parents = SHAPES[shape]
    edges = sum(map(len, parents))
    steps = 0

    def counting(node_parents):
        nonlocal steps
        for each in node_parents:
            steps += 1
            yield each

    monkeypatch.setattr(core, "iter", counting, raising=False)
    nodes = [Part(f"n{n}", [f"n{p}" for p in ps]) for n, ps in enumerate(parents, 1)]
    assert resolve(nodes) == parents
    assert steps == edges


@pytest.mark.parametrize("shape", SHAPES)
def test_running_a_graph_follows_each_edge_once(shape):
    parents = SHAPES[shape]
    graph = counted(parents)
    ready = graph.roots
    for number in ready:  # grows while it is walked
        assert graph.may_run(number)
        graph.moved(number, State.RUNNING)
        ready += graph.ended(number, State.SUCCESS, number).released
    assert sorted(ready) == list(graph)
    assert graph.is_over
    assert graph.state == State.SUCCESS
    assert Counted.steps == sum(map(len, parents))


@pytest.mark.parametrize("shape", SHAPES)
def test_failing_a_graph_follows_each_edge_at_most_twice(shape):
    """Once to find what is doomed, once when the doomed end."""
    parents = SHAPES[shape]
    graph = counted(parents)
    for root in graph.roots:
        graph.ended(root, State.FAILED, 1)
    doomed = graph.unfinished()
    assert len(doomed) == sum(map(bool, parents))
    for number in doomed:
        assert not graph.ended(number, State.FAILED, 2).doomed
    assert graph.is_over
    assert not graph.has_unfinished
    assert Counted.steps <= 2 * sum(map(len, parents))


@pytest.mark.parametrize("shape", SHAPES)
def test_depths_follow_each_edge_once(shape):
    graph = counted(SHAPES[shape])
    depths = graph.depths()
    assert Counted.steps == sum(map(len, SHAPES[shape]))
    for number in graph:
        above = [depths[parent] + 1 for parent in graph.parents(number)]
        assert depths[number] == max(above, default=0)


# -- against a model that knows nothing but edges and ends


class Model(RuleBasedStateMachine):
    """Everything recomputed from the edges and the states, at each question."""

    @initialize(data=st.data(), size=st.integers(1, 7))
    def submit(self, data: st.DataObject, size: int) -> None:
        parents = [
            tuple(sorted(data.draw(st.sets(st.integers(1, number - 1))))) if number > 1 else ()
            for number in range(1, size + 1)
        ]
        self.graph = Graph(parents)
        self.parents: dict[int, list[int]] = dict(enumerate(map(list, parents), 1))
        self.states = dict.fromkeys(self.parents, State.WAITING)
        self.ended_at: dict[int, int] = {}
        self.now = 0

    def ancestors(self, number: int) -> set[int]:
        found: set[int] = set()
        front = [number]
        while front:
            for parent in self.parents[front.pop()]:
                if parent not in found:
                    found.add(parent)
                    front.append(parent)
        return found

    def is_doomed(self, number: int) -> bool:
        bad = (State.FAILED, State.CANCELLED)
        return any(self.states[each] in bad for each in self.ancestors(number))

    def is_free(self, number: int) -> bool:
        done = all(self.states[each] == State.SUCCESS for each in self.parents[number])
        return done and not self.graph.is_cancelled

    def shown(self, number: int) -> State:
        state = self.states[number]
        if state in FINAL:
            return state
        if self.graph.is_cancelled:
            return State.CANCELLED
        return State.FAILED if self.is_doomed(number) else state

    def those(self, *states: State) -> list[int]:
        return [number for number, state in self.states.items() if state in states]

    def free(self) -> list[int]:
        return [number for number in self.those(State.WAITING) if self.is_free(number)]

    def unfinished(self) -> list[int]:
        open_ones = self.those(State.WAITING, State.RUNNING)
        return [n for n in open_ones if self.graph.is_cancelled or self.is_doomed(n)]

    def end(self, number: int, state: State) -> None:
        self.now += 1
        waiting = [each for each in self.those(State.WAITING) if not self.is_free(each)]
        well = [each for each in self.states if not self.is_doomed(each)]
        self.states[number] = state
        self.ended_at[number] = self.now
        change = self.graph.ended(number, state, self.now)
        assert change.released == sorted(change.released, key=change.released.index)
        assert set(change.released) == {each for each in waiting if self.is_free(each)}
        open_ones = {each for each in well if self.states[each] not in FINAL}
        assert set(change.doomed) == {each for each in open_ones if self.is_doomed(each)}
        assert all(self.graph.doomed_by(each) == number for each in change.doomed)
        again = self.graph.ended(number, State.SUCCESS, self.now + 99)
        assert not again.released
        assert not again.doomed

    @precondition(lambda self: self.free())
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.free()))
        self.states[number] = State.RUNNING
        self.graph.moved(number, State.RUNNING)

    @precondition(lambda self: self.those(State.RUNNING))
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.those(State.RUNNING)))
        self.states[number] = State.WAITING
        self.graph.moved(number, State.WAITING)

    @precondition(lambda self: self.those(State.RUNNING) and not self.graph.is_cancelled)
    @rule(data=st.data(), state=st.sampled_from(ENDS))
    def close(self, data: st.DataObject, state: State) -> None:
        self.end(data.draw(st.sampled_from(self.those(State.RUNNING))), state)

    @precondition(lambda self: self.those(*FINAL))
    @rule(data=st.data(), state=st.sampled_from([State.WAITING, State.RUNNING]))
    def hear_late_of_an_ended_member(self, data: st.DataObject, state: State) -> None:
        self.graph.moved(data.draw(st.sampled_from(self.those(*FINAL))), state)

    @precondition(lambda self: self.unfinished())
    @rule(data=st.data())
    def settle_one(self, data: st.DataObject) -> None:
        state = State.CANCELLED if self.graph.is_cancelled else State.FAILED
        self.end(data.draw(st.sampled_from(self.unfinished())), state)

    @rule()
    def cancel(self) -> None:
        if self.those(State.WAITING, State.RUNNING):
            self.graph.is_cancelled = True

    @precondition(lambda self: self.those(State.RUNNING) and not self.graph.is_cancelled)
    @rule(data=st.data(), how=st.sampled_from(["insert", "append", "child"]))
    def add(self, data: st.DataObject, how: str) -> None:
        if len(self.states) >= 12:
            return
        parent = data.draw(st.sampled_from(self.those(State.RUNNING)))
        new = len(self.states) + 1
        child = data.draw(st.sampled_from(sorted(self.states))) if how == "child" else 0
        if child and self.shown(child) != State.WAITING:
            with pytest.raises(ConflictError):
                self.graph.check_may_wait(child)
            return
        if child:
            self.graph.check_may_wait(child)
        if how == "insert":
            for number, parents in self.parents.items():
                self.parents[number] = [new if each == parent else each for each in parents]
            assert self.graph.insert(parent) == new
        else:
            assert self.graph.append(parent, child) == new
        if child:
            self.parents[child].append(new)
        self.parents[new] = [parent]
        self.states[new] = State.WAITING

    @invariant()
    def it_is_what_its_edges_and_states_say(self) -> None:
        graph = self.graph
        assert list(graph) == list(self.states)
        for number, state in self.states.items():
            assert list(graph.parents(number)) == self.parents[number]
            children = {each for each, ps in self.parents.items() if number in ps}
            assert set(graph.children(number)) == children
            assert len(graph.children(number)) == len(children)
            assert graph.stored_state(number) == state
            assert graph.state_of(number) == self.shown(number)
            if state == State.WAITING:
                assert graph.may_run(number) == self.is_free(number)
                waits = not self.is_done(number) and self.shown(number) == State.WAITING
                assert graph.waits_for_parents(number) == waits
            assert graph.has_inputs(number) == (bool(self.parents[number]) and self.is_done(number))
        assert graph.roots == [each for each, ps in self.parents.items() if not ps]
        above = {each for ps in self.parents.values() for each in ps}
        assert graph.leaves == [each for each in self.states if each not in above]
        assert graph.states == bytes(self.states.values())
        assert graph.ended_ns == max(self.ended_at.values(), default=0)

    def is_done(self, number: int) -> bool:
        return all(self.states[each] == State.SUCCESS for each in self.parents[number])

    @invariant()
    def times_run_from_the_end_of_the_last_parent(self) -> None:
        for number in self.states:
            ends = [self.ended_at[each] for each in self.parents[number] if self.is_done(number)]
            if ends:
                assert self.graph.ready_ns[number] == max(ends)

    @invariant()
    def its_own_state_is_the_sum_of_its_members(self) -> None:
        graph, states = self.graph, {self.shown(number) for number in self.states}
        assert graph.is_over == (set(self.states.values()) <= FINAL)
        assert sorted(graph.unfinished()) == self.unfinished()
        assert graph.has_unfinished == bool(self.unfinished())
        if graph.is_cancelled:
            assert graph.state == State.CANCELLED
        elif not states <= FINAL:
            stored = set(self.states.values())
            assert graph.state == (State.WAITING if stored == {State.WAITING} else State.RUNNING)
        elif State.FAILED in states:
            assert graph.state == State.FAILED
        else:
            assert graph.state == max(states)  # CANCELLED before SUCCESS

    @invariant()
    def one_that_is_made_anew_from_the_records_is_the_same(self) -> None:
        graph = self.graph
        again = Graph([graph.parents(number) for number in graph])
        again.is_cancelled = graph.is_cancelled
        for number, state in self.states.items():
            if state in FINAL:
                again.ended(number, state, self.ended_at[number])
        for number, state in self.states.items():
            if state not in FINAL:
                again.moved(number, state)
        assert again.states == graph.states
        assert again.state == graph.state
        assert sorted(again.unfinished()) == sorted(graph.unfinished())
        for number in graph:
            assert again.state_of(number) == graph.state_of(number)
            if graph.stored_state(number) == State.WAITING:
                assert again.may_run(number) == graph.may_run(number)


def test_a_graph_is_what_a_naive_model_says():
    run_state_machine_as_test(Model, settings=settings(stateful_step_count=25, deadline=None))


# -- single rules


def test_a_graph_without_members_yet_is_neither_over_nor_final():
    graph = Graph([])
    assert not graph.is_over
    assert graph.state == State.WAITING


def test_a_member_that_ended_stays_as_it_ended():
    graph = Graph([(), (1,)])
    graph.ended(1, State.SUCCESS, 5)
    graph.moved(1, State.RUNNING)
    assert graph.ended(1, State.FAILED, 9) == ([], [])
    assert graph.stored_state(1) == State.SUCCESS
    assert graph.ended_ns == 5


def test_each_member_is_doomed_once_by_the_first():
    graph = Graph([(), (), (1, 2), (3,)])
    assert graph.ended(1, State.FAILED, 1).doomed == [3, 4]
    assert graph.ended(2, State.CANCELLED, 2).doomed == []
    assert [graph.doomed_by(number) for number in graph] == [0, 0, 1, 1]
    assert graph.state == State.FAILED
    assert not graph.is_over


def test_a_child_that_is_doomed_at_the_moment_of_an_edit_stays_doomed():
    graph = Graph([(), (), (2,)])
    graph.moved(1, State.RUNNING)
    graph.ended(2, State.FAILED, 1)
    assert graph.append(1, 3) == 4
    assert graph.parents(3) == (2, 4)
    assert graph.state_of(3) == State.FAILED
    assert graph.unfinished() == [3]


def test_restored_states_are_counted():
    graph = Graph([(), (1,)])
    graph.restore(bytes([State.SUCCESS, State.CANCELLED]))
    assert graph.state == State.CANCELLED
    assert graph.is_over
