"""How a graph is drawn as a tree of lines. Pure, and linear in nodes and edges.

Every node is drawn in full where it is met first; where another parent leads to it again, it is
only named. So each edge is one line, and so is each node without parents. A tree that is not to
flood a terminal is folded: of the children of one node, only the first of each state are drawn, and
not more lines than a limit altogether.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

SIBLINGS: Final = 20
LINES: Final = 500
DEPTH: Final = 20
"""Deeper than this, a line shows the innermost levels only, and a number for the rest."""

_STEP: Final = 3
_TEE: Final = "├─ "
_END: Final = "└─ "
_PIPE: Final = "│  "
_GAP: Final = "   "
_UNDER: Final = {_TEE: _PIPE, _END: _GAP, "": ""}


class Kind(Enum):
    """What a line stands for."""

    NODE = auto()
    AGAIN = auto()
    MORE = auto()


class Line(NamedTuple):
    """One line. `node`: its number, or for `MORE` that of the parent, -1 for none.

    `number` and `state` are those of the nodes for which a line `MORE` stands.
    """

    kind: Kind
    node: int
    guide: str
    number: int = 0
    state: int = 0


class Tree(NamedTuple):
    """A drawing; `shown` says of each node whether it has a line of its own."""

    lines: list[Line]
    shown: list[bool]


class Fold(NamedTuple):
    """How much is drawn: children of one node in one state, and lines."""

    siblings: int = SIBLINGS
    lines: int = LINES


def draw(
    children: Sequence[Sequence[int]], states: Sequence[int], fold: Fold | None = None
) -> Tree:
    """Draw the graph in which node n leads to `children[n]`; without `fold`: all of it.

    Nodes that no node without parents leads to (a cycle, which is no workflow) are drawn last.
    """
    has_parent = [False] * len(children)
    for below in children:
        for child in below:
            has_parent[child] = True
    drawing = _Drawing(children, states, fold)
    drawing.walk([node for node, is_child in enumerate(has_parent) if not is_child])
    if fold is None:
        for node, is_shown in enumerate(drawing.tree.shown):
            if not is_shown:
                drawing.walk([node])
    return drawing.tree


class _Step(NamedTuple):
    """A line to be drawn; `trail` is what stands before its corner, for `depth` levels."""

    line: Line
    trail: str
    corner: str
    depth: int


class _Drawing:
    __slots__ = ("_children", "_fold", "_states", "tree")

    def __init__(
        self, children: Sequence[Sequence[int]], states: Sequence[int], fold: Fold | None
    ) -> None:
        self._children = children
        self._states = states
        self._fold = fold
        self.tree = Tree([], [False] * len(children))

    def walk(self, roots: Sequence[int]) -> None:
        """Depth first, with a stack of its own: a chain may be as long as the graph is large."""
        lines, shown = self.tree
        waiting = [_Step(line, "", "", 0) for line in reversed(self._below(-1, roots))]
        while waiting and (self._fold is None or len(lines) < self._fold.lines):
            step = waiting.pop()
            line = step.line._replace(guide=_guide(step))
            if line.kind is Kind.NODE and shown[line.node]:
                line = line._replace(kind=Kind.AGAIN)
            lines.append(line)
            if line.kind is Kind.NODE:
                shown[line.node] = True
                waiting += self._steps(step)

    def _steps(self, parent: _Step) -> list[_Step]:
        """The lines below a line, the first of them last, as a stack wants it."""
        node = parent.line.node
        trail = (parent.trail + _UNDER[parent.corner])[-DEPTH * _STEP :]
        steps = [
            _Step(line, trail, _TEE, parent.depth + 1)
            for line in reversed(self._below(node, self._children[node]))
        ]
        if steps:
            steps[0] = steps[0]._replace(corner=_END)
        return steps

    def _below(self, parent: int, nodes: Sequence[int]) -> list[Line]:
        if self._fold is None or len(nodes) <= self._fold.siblings:
            return [Line(Kind.NODE, node, "") for node in nodes]
        met: Counter[int] = Counter()
        lines: list[Line] = []
        for node in nodes:
            state = self._states[node]
            met[state] += 1
            if met[state] <= self._fold.siblings:
                lines.append(Line(Kind.NODE, node, ""))
        lines += [
            Line(Kind.MORE, parent, "", number - self._fold.siblings, state)
            for state, number in met.items()
            if number > self._fold.siblings
        ]
        return lines


def _guide(step: _Step) -> str:
    # Below nodes without parents stands a corner, and before it a piece for each level between.
    left_out = step.depth - 1 - len(step.trail) // _STEP
    return (f"[+{left_out}] " if left_out > 0 else "") + step.trail + step.corner
