"""What is known of one workflow: its graph, and what was read or heard of its members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from colonist_client.client import Client
from colonist_protocol.process import FINAL, MAX_LIST, Process, State
from colonist_protocol.workflow import ProcessGraph

MAX_RESULTS: Final = 100
"""Of so many last nodes the results are shown."""

_STATES: Final = {
    "#eee8d8": State.WAITING,
    "#4689cd": State.RUNNING,
    "#92d050": State.SUCCESS,
    "#cb4239": State.FAILED,
    "#f5a623": State.CANCELLED,
}
"""The protocol tells a node's state by its colour (COLONIES-RPC section 3.6)."""


class Board:
    """A workflow's nodes by number, in the order of the server."""

    def __init__(self, graph: ProcessGraph) -> None:
        self.members: dict[str, Process] = {}
        self.update(graph)

    def update(self, graph: ProcessGraph) -> None:
        """Take a newer look at the whole."""
        self.graph = graph
        self.numbers = {node.id: number for number, node in enumerate(graph.nodes)}
        self.names = [node.data.get("label", "") for node in graph.nodes]
        self.states: list[int] = [
            _STATES.get(node.style.get("background", "").lower(), State.WAITING)
            for node in graph.nodes
        ]
        self.children: list[list[int]] = [[] for _ in graph.nodes]
        for edge in graph.edges:
            if edge.source in self.numbers and edge.target in self.numbers:
                self.children[self.numbers[edge.source]].append(self.numbers[edge.target])
        for process in self.members.values():
            number = self.numbers.get(process.processid)
            if number is not None and process.is_final:
                self.states[number] = process.state

    def learn(self, members: Iterable[Process]) -> None:
        """Keep what was read of members, beside what the graph says of their states."""
        self.members.update((each.processid, each) for each in members)

    def hear(self, process: Process) -> bool:
        """Take an event; whether it says something new. What has ended stays so."""
        number = self.numbers.get(process.processid)
        if number is None or self.states[number] in FINAL:
            return False
        before = self.members.get(process.processid)
        is_new = self.states[number] != process.state or (
            before is not None and before.retries != process.retries
        )
        self.states[number] = process.state
        self.members[process.processid] = process
        return is_new

    def is_mine(self, process: Process) -> bool:
        """Whether it is a member of this workflow."""
        return process.processgraphid == self.graph.processgraphid

    def member(self, number: int) -> Process | None:
        """What is known of a node beyond its state."""
        return self.members.get(self.graph.nodes[number].id)

    @property
    def counts(self) -> dict[int, int]:
        """How many nodes are in each state."""
        return dict(sorted(Counter(self.states).items()))

    @property
    def done(self) -> int:
        """How many nodes have ended."""
        return sum(state in FINAL for state in self.states)

    @property
    def state(self) -> int:
        """Of the whole; what it is in the end only the server says."""
        if self.graph.is_final or not self.states:
            return self.graph.state
        has_begun = any(state != State.WAITING for state in self.states)
        return State.RUNNING if has_begun else State.WAITING

    @property
    def is_over(self) -> bool:
        """Whether all that is known has ended."""
        return self.done == len(self.states)

    @property
    def last(self) -> Sequence[int]:
        """The nodes that nothing waits for."""
        return [number for number, below in enumerate(self.children) if not below]

    def failed(self) -> list[int]:
        """The nodes that failed by themselves, not because of one that they depend on."""
        failed = [number for number, state in enumerate(self.states) if state == State.FAILED]
        doomed = {child for number in failed for child in self.children[number]}
        return [number for number in failed if number not in doomed]


async def read(client: Client, workflow_id: str) -> Board:
    """A workflow, and up to a hundred of its members in each state."""
    board = Board(await client.workflow(workflow_id))
    await read_members(client, board)
    return board


async def read_members(client: Client, board: Board) -> None:
    """Read times and reasons: at most one request for each state."""
    graph = board.graph
    if len(board.states) <= MAX_LIST:
        found = await client.workflow_members(graph.colonyname, graph.processgraphid)
        board.learn(found)
        return
    for state in board.counts:
        board.learn(
            await client.workflow_members(graph.colonyname, graph.processgraphid, state=state)
        )


async def results(client: Client, board: Board) -> list[tuple[str, Process]]:
    """The last nodes that were successful, by name, with their results."""
    found: list[tuple[str, Process]] = []
    for number in board.last[:MAX_RESULTS]:
        process = board.member(number)
        if process is None or not process.is_final:
            process = await client.get(board.graph.nodes[number].id)
        if process.state == State.SUCCESS:
            found.append((board.names[number], process))
    return found
