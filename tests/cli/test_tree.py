"""A graph as a tree of lines: nothing is left out, nothing is told twice, and it stays cheap."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_cli import tree
from colonist_cli.tree import Fold, Kind, draw

Graph = list[list[int]]


@st.composite
def graphs(draws: st.DrawFn) -> Graph:
    """Graphs without cycles: each edge leads to a larger number."""
    size = draws(st.integers(0, 25))
    return [
        sorted(draws(st.sets(st.integers(node + 1, size - 1)))) if node + 1 < size else []
        for node in range(size)
    ]


def edges(drawn: tree.Tree) -> Counter[tuple[int, int]]:
    """Each line's parent, read from what is printed: the last line above it that stands left."""
    found: Counter[tuple[int, int]] = Counter()
    path: dict[int, int] = {}
    for line in drawn.lines:
        depth = len(line.guide) // 3
        if depth:
            found[path[depth - 1], line.node] += 1
        if line.kind is Kind.NODE:
            path[depth] = line.node
    return found


@given(graphs())
def test_every_node_is_drawn_once(graph: Graph) -> None:
    drawn = draw(graph, [0] * len(graph))
    own = [line.node for line in drawn.lines if line.kind is Kind.NODE]
    assert sorted(own) == list(range(len(graph)))
    assert all(drawn.shown)


@given(graphs())
def test_every_edge_is_one_line_below_its_parent(graph: Graph) -> None:
    drawn = draw(graph, [0] * len(graph))
    if any(line.guide.startswith("[") for line in drawn.lines):
        return
    wanted = Counter((node, child) for node, below in enumerate(graph) for child in below)
    assert edges(drawn) == wanted


@given(graphs())
def test_a_node_that_is_named_again_was_drawn_before(graph: Graph) -> None:
    met = set[int]()
    for line in draw(graph, [0] * len(graph)).lines:
        assert (line.kind is Kind.AGAIN) == (line.node in met)
        met.add(line.node)


@given(graphs(), st.integers(1, 4), st.integers(1, 30), st.data())
def test_what_is_folded_is_counted(
    graph: Graph, siblings: int, lines: int, data: st.DataObject
) -> None:
    size = len(graph)
    states = data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    drawn = draw(graph, states, Fold(siblings, lines))
    assert len(drawn.lines) <= lines
    own = [line.node for line in drawn.lines if line.kind is Kind.NODE]
    assert sorted(own) == [node for node, is_shown in enumerate(drawn.shown) if is_shown]
    whole = draw(graph, states, Fold(siblings, 10**6))
    is_deep = any(line.guide.startswith("[") for line in whole.lines)
    below = Counter[tuple[int, int]]() if is_deep else edges(whole)
    for node in (node for node, is_shown in enumerate(whole.shown) if is_shown):
        wanted = Counter(states[child] for child in graph[node])
        more = {
            line.state: line.number
            for line in whole.lines
            if line.kind is Kind.MORE and line.node == node
        }
        for state, count in wanted.items():
            is_small = len(graph[node]) <= siblings
            assert more.get(state, 0) == (0 if is_small else max(0, count - siblings))
            named = sum(below[node, child] for child in graph[node] if states[child] == state)
            assert is_deep or named == count - more.get(state, 0)


def test_a_diamond_is_drawn_as_expected() -> None:
    drawn = draw([[1, 2], [3], [3], []], [0] * 4)
    shown = [
        line.guide + "abcd"[line.node] + (" again" if line.kind is Kind.AGAIN else "")
        for line in drawn.lines
    ]
    assert shown == ["a", "├─ b", "│  └─ d", "└─ c", "   └─ d again"]


def test_a_cycle_is_drawn_too() -> None:
    assert all(draw([[1], [0]], [0, 0]).shown)


class Counted(list[list[int]]):
    """Adjacency that counts how often the edges of a node are read."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.reads = Counter[int]()

    def __getitem__(self, node: int) -> list[int]:  # type: ignore[override]
        self.reads[node] += 1
        return super().__getitem__(node)


@pytest.mark.parametrize("size", [1_000, 10_000])
@pytest.mark.parametrize("shape", ["chain", "star", "ladder"])
def test_it_is_linear_in_lines_and_in_characters(shape: str, size: int) -> None:
    made: Graph = {
        "chain": [[node + 1] if node + 1 < size else [] for node in range(size)],
        "star": [list(range(1, size)), *([] for _ in range(size - 1))],
        "ladder": [[each for each in (node + 1, node + 2) if each < size] for node in range(size)],
    }[shape]
    graph = Counted(made)
    drawn = draw(graph, [0] * size)
    assert set(graph.reads.values()) == {1}
    assert len(drawn.lines) == 1 + sum(map(len, made))
    longest = max(len(line.guide) for line in drawn.lines)
    assert longest <= tree.DEPTH * 3 + 12


@pytest.mark.parametrize("fold", [Fold(), Fold(lines=30)])
def test_ten_thousand_nodes_do_not_flood(fold: Fold) -> None:
    layer = list(range(1, 5_000))
    graph = [layer, *([5_000, 5_001] for _ in layer), *([] for _ in range(5_000))]
    assert len(draw(graph, [0] * len(graph), fold).lines) <= 100
