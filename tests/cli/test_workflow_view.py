"""A workflow as people see it: from a server, folded, and followed while it runs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from colonist_cli import board as boards
from colonist_cli import workflow_live, workflow_text
from colonist_cli.board import Board
from colonist_cli.exits import CliError, Exit
from colonist_cli.live import Event, Joined
from colonist_cli.tree import Fold
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_client.subscriptions import Subscriber, Subscription
from colonist_protocol.process import CloseFailed, Process, State
from colonist_protocol.workflow import AddChild, Edge, Node, Position, ProcessGraph
from tests.server.house import DEADLINE_S, House, house
from tests.support.rooms import COLONY, key, spec

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
COLOURS = {"w": "#eee8d8", "r": "#4689CD", "s": "#92d050", "f": "#cb4239", "c": "#f5a623"}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[House]:
    async with house(tmp_path) as made:
        await made.found("e")
        yield made


@pytest.fixture
async def client(lab: House) -> AsyncGenerator[Client]:
    async with Client(HttpTransport(lab.url), key("e")) as made:
        yield made


def graph(states: str, edges: list[tuple[int, int]]) -> ProcessGraph:
    """Nodes `n0`, `n1`, ... in these states, by their first letters."""
    return ProcessGraph(
        processgraphid="f" * 64,
        colonyname=COLONY,
        nodes=[
            Node(
                id=f"{number:064x}",
                data={"label": f"n{number}"},
                position=Position(),
                type="",
                style={"background": COLOURS.get(state, state)},
            )
            for number, state in enumerate(states)
        ],
        edges=[
            Edge(id="", source=f"{one:064x}", target=f"{other:064x}", animated=False)
            for one, other in edges
        ],
    )


def drawn(board: Board, fold: Fold | None = None) -> list[str]:
    return [line.plain for line in workflow_text.text_of(board, fold=fold)]


async def work(made: House, *, fails: str = "") -> None:
    """Run the next process of the colony."""
    process = await made.assign("e")
    if process.spec.nodename == fails:
        message = CloseFailed(processid=process.processid, errors=["no", "\x1b[31mway"])
        await made.call(message, key("e"))
    else:
        await made.close("e", process.processid)


async def test_a_workflow_is_read_with_its_reasons(lab: House, client: Client) -> None:
    made = await lab.submit_workflow("e", DIAMOND)
    for _ in range(3):
        await work(lab, fails="c")
    board = await boards.read(client, made.processgraphid)
    head, *tree = drawn(board)
    assert head.startswith(f"workflow {made.processgraphid}  failed  4 of 4 done: ")
    assert [line.partition("  ")[0] for line in tree] == ["a", "├─ b", "│", "└─ c", ""]
    assert tree[3].endswith(r"no; \x1b[31mway")
    assert tree[4] == "   └─ d ↑ above"
    assert workflow_text.reasons(board) == r"c: no; \x1b[31mway"


def test_the_state_of_a_node_is_its_colour() -> None:
    board = Board(graph("wrsfcx", []))
    assert board.states == [0, 1, 2, 3, 4, 0]
    assert board.counts == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
    assert (board.done, board.is_over, board.state) == (3, False, State.RUNNING)
    assert Board(graph("ww", [])).state == State.WAITING
    assert Board(graph("", [])).is_over


def test_an_edge_to_nowhere_is_not_drawn() -> None:
    assert drawn(Board(graph("w", [(0, 7), (7, 0)])))[1:] == ["n0  waiting"]


def test_ten_thousand_nodes_are_folded_and_failures_told() -> None:
    states = "s" + "w" * 9_000 + "s" * 998 + "f"
    board = Board(graph(states, [(0, number) for number in range(1, 10_000)]))
    lines = drawn(board, Fold())
    assert "└─ n9999  failed" not in lines[-1]
    assert "├─ … 8980 more waiting" in lines
    assert "├─ n9999  failed" in lines
    assert lines[-1] == "9958 of 10000 nodes are not drawn: --all"
    assert len(lines) == 46
    few = drawn(board, Fold(lines=5))
    assert few[-2:] == [
        "failed, not drawn: n9999: no reason known",
        "9995 of 10000 nodes are not drawn: --all",
    ]
    assert len(drawn(board)) == 10_001


def test_only_the_causes_are_given_as_reasons() -> None:
    board = Board(graph("fffff", [(0, 1), (1, 2)]))
    assert board.failed() == [0, 3, 4]
    many = Board(graph("f" * 9, []))
    assert workflow_text.reasons(many).endswith("n2: no reason known; and 6 more")


def test_an_event_does_not_undo_an_end() -> None:
    board = Board(graph("rs", []))
    process = msgspec.structs.replace(_process(board, 1), state=State.RUNNING)
    assert not board.hear(process)
    assert board.states == [1, 2]
    assert board.hear(msgspec.structs.replace(_process(board, 0), state=State.SUCCESS))
    board.update(graph("rs", []))  # a look that was taken before
    assert board.states == [2, 2]
    assert not board.hear(msgspec.structs.replace(process, processid="a" * 64))


def _process(board: Board, number: int) -> Process:
    return Process(
        processid=board.graph.nodes[number].id,
        initiatorid="",
        initiatorname="",
        assignedexecutorid="",
        isassigned=False,
        state=0,
        prioritytime=0,
        submissiontime="",
        spec=spec(),
    )


class Recorder:
    """A view that keeps what it was shown."""

    tick_s = DEADLINE_S

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.shown = asyncio.Event()

    def show(self, board: Board, heard: list[Process]) -> None:
        self.heard += [
            board.names[board.numbers[each.processid]] + State(each.state).name[0] for each in heard
        ]
        self.shown.set()

    async def until(self, word: str) -> None:
        while word not in self.heard:
            self.shown.clear()
            await self.shown.wait()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_live, "REDRAW_S", 0)
    monkeypatch.setattr(workflow_live, "FALLBACK_S", 0.05)


async def follow(
    client: Client,
    subscriber: Subscriber,
    id: str,
    drive: Callable[[Recorder], Awaitable[None]],
) -> tuple[Board, list[str]]:
    view = Recorder()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        task = group.create_task(workflow_live.follow(client, subscriber, id, view))
        await drive(view)
    return task.result(), view.heard


async def test_each_change_is_shown_until_the_end(lab: House, client: Client) -> None:
    made = await lab.submit_workflow("e", DIAMOND)

    async def drive(view: Recorder) -> None:
        await work(lab)
        await view.until("aS")
        for _ in range(3):
            await work(lab)

    subscriber = Subscriber(lab.url, key("e"))
    board, heard = await follow(client, subscriber, made.processgraphid, drive)
    assert board.graph.state == State.SUCCESS
    assert [each for each in heard if each[1] == "S"] == ["aS", "bS", "cS", "dS"]
    found = await boards.results(client, board)
    assert [(name, process.output()) for name, process in found] == [("d", ["done"])]


async def test_a_node_that_is_added_meanwhile_is_followed_too(lab: House, client: Client) -> None:
    made = await lab.submit_workflow("e", {"a": []})

    async def drive(view: Recorder) -> None:
        process = await lab.assign("e")
        await view.until("aR")
        wanted = AddChild(
            processgraphid=made.processgraphid,
            parentprocessid=process.processid,
            spec=spec(nodename="late"),
        )
        await lab.call(wanted, key("e"))
        await lab.close("e", process.processid)
        await work(lab)

    subscriber = Subscriber(lab.url, key("e"))
    board, heard = await follow(client, subscriber, made.processgraphid, drive)
    assert board.names == ["a", "late"]
    assert heard[-1] == "lateS"


async def test_a_workflow_that_has_ended_is_shown_as_it_is(lab: House, client: Client) -> None:
    made = await lab.submit_workflow("e", DIAMOND)
    for _ in range(3):
        await work(lab, fails="c")

    async def drive(view: Recorder) -> None:
        await view.until("dF")

    subscriber = Subscriber(lab.url, key("e"))
    board, heard = await follow(client, subscriber, made.processgraphid, drive)
    assert heard == ["aS", "bS", "cF", "dF"]
    assert workflow_text.reasons(board).startswith("c: no")


async def test_members_that_are_behind_their_graph_are_looked_at_again(
    lab: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await lab.submit_workflow("e", DIAMOND)
    for _ in range(3):
        await work(lab, fails="c")
    looks: list[int] = []
    honest = client.workflow_members

    async def late(*arguments: str, **more: int) -> list[Process]:
        found = await honest(*arguments, **more)
        looks.append(len(found))
        if len(looks) > 3:
            return found
        return [*found[:3], msgspec.structs.replace(found[3], state=State.WAITING, errors=[])]

    monkeypatch.setattr(client, "workflow_members", late)
    monkeypatch.setattr(workflow_live, "BEHIND_S", 0)

    async def drive(view: Recorder) -> None:
        await view.until("dF")

    subscriber = Subscriber(lab.url, key("e"))
    _, heard = await follow(client, subscriber, made.processgraphid, drive)
    assert heard == ["aS", "bS", "cF", "dF"]
    assert len(looks) >= 4


class Cut(Subscriber):
    """A way to the server that can be cut."""

    def __init__(self, url: str) -> None:
        super().__init__(url, key("e"))
        self.made: list[Subscription] = []

    def subscribe_processes(self, *arguments: str, **more: object) -> Subscription:
        del more
        self.made.append(super().subscribe_processes(*arguments))
        return self.made[-1]

    def cut(self) -> None:
        socket = self.made[-1]._socket
        assert socket is not None
        connection = socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()


async def test_what_happened_while_the_connection_was_lost_is_shown(
    lab: House, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await lab.submit_workflow("e", DIAMOND)
    subscriber = Cut(lab.url)

    async def drive(view: Recorder) -> None:
        await work(lab)
        await view.until("aS")
        subscriber.cut()
        for _ in range(3):
            await work(lab)

    board, heard = await follow(client, subscriber, made.processgraphid, drive)
    assert board.graph.is_final
    assert {"aS", "bS", "cS", "dS"} <= set(heard)
    assert len(subscriber.made) > 1
    assert "connected again after" in capsys.readouterr().err


async def test_what_a_look_finds_is_shown_before_the_events_that_followed_from_it(
    lab: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of all but the last node were missed: they came before the subscription."""
    made = await lab.submit_workflow("e", DIAMOND)
    for _ in range(4):
        await work(lab)
    last = await client.get(made.processids[3])
    honest = client.workflow
    monkeypatch.setattr(workflow_live, "events", lambda *_: _one_by_one([Joined(None), last]))

    async def behind(id: str) -> ProcessGraph:
        """As it was before anything ran, at the first looks."""
        found = await honest(id)
        looks.append(id)
        if len(looks) > 2:
            return found
        nodes = [
            msgspec.structs.replace(node, style={"background": COLOURS["w"]})
            for node in found.nodes
        ]
        return msgspec.structs.replace(found, nodes=nodes, state=State.WAITING)

    looks: list[str] = []
    monkeypatch.setattr(client, "workflow", behind)

    async def drive(view: Recorder) -> None:
        await view.until("dS")

    subscriber = Subscriber(lab.url, key("e"))
    _, heard = await follow(client, subscriber, made.processgraphid, drive)
    assert heard == ["aS", "bS", "cS", "dS"]


async def _one_by_one(found: list[Event]) -> AsyncGenerator[Event]:
    for event in found:
        yield event
    await asyncio.Event().wait()


async def test_without_a_web_socket_the_whole_is_looked_at(
    lab: House, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await lab.submit_workflow("e", {"a": []})

    async def drive(view: Recorder) -> None:
        told = ""
        while "no events to be had" not in told:
            await view.shown.wait()
            view.shown.clear()
            told += capsys.readouterr().err
        await work(lab)

    nowhere = Subscriber("http://127.0.0.1:1", key("e"))
    board, heard = await follow(client, nowhere, made.processgraphid, drive)
    assert board.graph.is_final
    assert heard[-1] == "aS"


async def test_a_cancelled_workflow_is_the_end(lab: House, client: Client) -> None:
    made = await lab.submit_workflow("e", DIAMOND)

    async def drive(view: Recorder) -> None:
        del view
        await client.cancel_workflow(made.processgraphid)

    subscriber = Subscriber(lab.url, key("e"))
    board, _ = await follow(client, subscriber, made.processgraphid, drive)
    assert board.graph.state == State.CANCELLED


async def test_waiting_in_vain_is_told(lab: House, client: Client) -> None:
    made = await lab.submit_workflow("e", DIAMOND)
    subscriber = Subscriber(lab.url, key("e"))
    with pytest.raises(CliError, match="it goes on") as told:
        await workflow_live.follow(
            client, subscriber, made.processgraphid, Recorder(), timeout_s=0.05
        )
    assert told.value.exit is Exit.TIMEOUT


def test_progress_in_a_pipe_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    view = workflow_live.Progress()
    for done in range(101):
        view.show(Board(graph("s" * done + "w" * (100 - done), [])), [])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "0 of 100 done: 100 waiting"
    assert lines[-1] == "100 of 100 done: 100 success"
