"""What must hold of a store with workflows in it, and of every view of it; for tests."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from colonist_core.process import Live, What
from colonist_core.workflow import Graph, Parents
from colonist_protocol.process import FINAL, State
from colonist_server.repo import keys
from colonist_server.repo.births import env_ids
from colonist_server.repo.load import load
from colonist_server.repo.nouns import Colony, Workflow
from colonist_server.repo.records import (
    ENDED_WORKFLOW,
    WorkflowState,
    decode_closed,
    decode_edit,
    decode_live,
    decode_shape,
    decode_workflow,
)
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY

_OF_MEMBERS = (keys.BIRTH, keys.LIVE, keys.CLOSED, keys.OUTPUT, keys.ATTRIBUTE, keys.EVENTS)
_OF_WORKFLOWS = (keys.SHAPE, keys.EDIT, keys.REQUEST)


class Member(NamedTuple):
    """One member as the store has it."""

    pid: bytes
    live: Live
    is_closed: bool

    @property
    def state(self) -> State:
        return State(self.live.state)


# -- the store


def keys_under(store: MemoryStore, prefix: bytes) -> list[bytes]:
    return sorted(key for key in store._items if key.startswith(prefix))


def members_of(store: MemoryStore, wid: bytes) -> list[Member]:
    """All members of one workflow, in order."""
    found: list[Member] = []
    for key in keys_under(store, keys.BIRTH + wid):
        pid = key[2:]
        live, closed = store._items.get(keys.live(pid)), store._items.get(keys.closed(pid))
        assert (live is None) != (closed is None), f"{pid.hex()}: in s, z, or both"
        if live is not None:
            found.append(Member(pid, decode_live(live.value), is_closed=False))
        elif closed is not None:
            found.append(Member(pid, decode_closed(closed.value).live, is_closed=True))
    return found


def graph_of(store: MemoryStore, wid: bytes) -> Graph:
    """Who waits for whom; the states are those of the records."""
    parents: list[Parents] = []
    for key in keys_under(store, keys.shape_of(wid)):
        parents += decode_shape(store._items[key].value).parents
    graph = Graph(parents)
    for key in keys_under(store, keys.edits_of(wid)):
        edit = decode_edit(store._items[key].value)
        if edit.insert:
            graph.insert(edit.parent)
        else:
            graph.append(edit.parent, edit.child)
    return graph


def wids_of(store: MemoryStore) -> set[bytes]:
    """Every workflow of which anything is there."""
    found = {key[2:] for key in keys_under(store, keys.WORKFLOW)}
    for prefix in _OF_WORKFLOWS:
        start = len(prefix)
        found |= {key[start : start + keys.WID_BYTES] for key in keys_under(store, prefix)}
    for prefix in _OF_MEMBERS:
        pids = {key[2 : 2 + keys.PID_BYTES] for key in keys_under(store, prefix)}
        found |= {pid[: keys.WID_BYTES] for pid in pids if keys.number_of(pid)}
    return found


def audit(store: MemoryStore) -> None:
    """Whole workflows only: heads, members, lists, indexes agree, and nobody ran too early."""
    for wid in wids_of(store):
        head = store._items.get(keys.workflow(wid))
        assert head is not None, f"{wid.hex()}: something is left of it"
        record = decode_workflow(head.value)
        assert record.state not in (WorkflowState.STAGING, WorkflowState.REMOVING)
        members = members_of(store, wid)
        graph = graph_of(store, wid)
        assert len(members) == len(graph) == record.size
        assert len(keys_under(store, keys.edits_of(wid))) == record.edits
        _check_members(graph, members, is_cancelled=record.state == WorkflowState.CANCELLED)
        if record.state in ENDED_WORKFLOW:
            assert record.states == bytes(member.state for member in members)
            assert {member.state for member in members} <= FINAL
            graph.restore(record.states)
            expected = State.CANCELLED if record.cancelled_by else graph.state
            assert record.state == expected
            index = keys.ended_workflow(wid[:4], record.state, record.submitted_ns, wid)
            assert index in store._items
    _check_lists(store)
    _check_attributes(store)


def _check_members(graph: Graph, members: list[Member], *, is_cancelled: bool) -> None:
    lives = [member.live for member in members]
    for number, live in enumerate(lives, 1):
        above = [lives[parent - 1] for parent in graph.parents(number)]
        last = What(live.events[-1].what) if live.events else None
        if live.attempt:  # whoever ran did so after all of its parents had succeeded
            assert all(parent.state == State.SUCCESS for parent in above)
        for event in live.events:
            if event.what == What.ASSIGNED and not any(
                each.what in (What.ORPHANED, What.REQUEUED, What.RELEASED, What.UNDELIVERED)
                for each in live.events
            ):
                assert all(parent.changed_ns // 1_000_000 <= event.time_ms for parent in above)
        if last is What.PARENT_FAILED:
            assert any(parent.state in (State.FAILED, State.CANCELLED) for parent in above)
        if last is What.CANCELLED:
            assert is_cancelled
        if live.state in (State.SUCCESS, State.FAILED):
            assert live.state == State.FAILED or live.attempt


def _check_lists(store: MemoryStore) -> None:
    """Each closed process, and each ended workflow, is listed once, where it belongs."""
    listed: list[bytes] = []
    for key in keys_under(store, keys.ENDED):
        state, is_process = keys.state_of_ended(key), keys.kind_of_ended(key) == keys.KIND_PROCESS
        if is_process:
            pid = key[-keys.PID_BYTES :]
            live = decode_closed(store._items[keys.closed(pid)].value).live
            assert (live.state, live.changed_ns) == (state, keys.time_of_ended(key))
            listed.append(pid)
        else:
            wid = key[-keys.WID_BYTES :]
            assert decode_workflow(store._items[keys.workflow(wid)].value).state == state
            listed.append(wid)
    assert len(listed) == len(set(listed))
    assert {key[2:] for key in keys_under(store, keys.CLOSED)} <= set(listed)


def _check_attributes(store: MemoryStore) -> None:
    there: set[str] = set()
    for key in keys_under(store, keys.BIRTH):
        there |= set(env_ids(store._items[key]))
    there |= {key[-keys.ATTRIBUTE_BYTES :].hex() for key in keys_under(store, keys.ATTRIBUTE)}
    indexed = {key[len(b"ai/") :].hex() for key in keys_under(store, b"ai/")}
    assert indexed == there


def recount(store: MemoryStore, tag: bytes) -> tuple[Counter[State], Counter[State]]:
    """How many processes and workflows of a colony are in which state, from their records."""
    processes: Counter[State] = Counter()
    for key in keys_under(store, keys.LIVE + tag):
        processes[State(decode_live(store._items[key].value).state)] += 1
    for key in keys_under(store, keys.CLOSED + tag):
        processes[State(decode_closed(store._items[key].value).live.state)] += 1
    workflows: Counter[State] = Counter()
    for key in keys_under(store, keys.WORKFLOW + tag):
        record = decode_workflow(store._items[key].value)
        if record.state in ENDED_WORKFLOW:
            workflows[State(record.state)] += 1
        else:
            members = members_of(store, key[2:])
            states = {member.state for member in members}
            workflows[State.WAITING if states == {State.WAITING} else State.RUNNING] += 1
    return processes, workflows


# -- views of it


def seen(view: View) -> dict[str, Any]:
    """All that a view says of workflows and processes; no two views may differ in it."""
    return {
        "rows": {
            pid: (row.state, row.revision, row.raw, row.blocked, row.deadline_ns)
            for pid, row in view.rows.items()
        },
        "colonies": {name: _of_colony(colony) for name, colony in view.colonies.items()},
        "workflows": {wid: _of_workflow(each) for wid, each in view.workflows.items()},
    }


def _of_colony(colony: Colony) -> dict[str, Any]:
    shown = [each.state for each in colony.workflows.values() if each.is_shown]
    counted = list(colony.open_workflows.counts())
    assert counted == [shown.count(state) for state in State]
    return {
        "queue": [row.pid for row in colony.queue],
        "length": len(colony.queue),
        "blocked": set(colony.blocked),
        "running": set(colony.running),
        "waiting": colony.waiting,
        "closed": colony.closed,
        "closed workflows": colony.closed_workflows,
        "workflows": set(colony.workflows),
        "open workflows": counted,
    }


def _of_workflow(workflow: Workflow) -> dict[str, Any]:
    graph = workflow.graph
    return {
        "record": workflow.record,
        "revision": workflow.revision,
        "edits": workflow.edits,
        "staged": {pid: row.revision for pid, row in workflow.staged.items()},
        "state": workflow.state,
        "is_over": graph.is_over,
        "unfinished": sorted(graph.unfinished()),
        "ended_ns": graph.ended_ns,
        "members": [
            (
                graph.parents(number),
                sorted(graph.children(number)),
                graph.state_of(number),
                graph.stored_state(number),
                graph.stored_state(number) == State.WAITING and graph.may_run(number),
                graph.has_inputs(number),
                graph.waits_for_parents(number),
            )
            for number in graph
        ],
    }


async def fresh(store: MemoryStore) -> dict[str, Any]:
    """What a view says that was loaded just now."""
    view = View()
    await load(Writes(store, view))
    return seen(view)


async def check_view(view: View, store: MemoryStore) -> None:
    """The view is what the store holds, and counts what it holds."""
    assert seen(view) == await fresh(store)
    colony = view.colonies.get(COLONY)
    if colony is None:
        return
    processes, workflows = recount(store, colony.tag)
    assert colony.waiting == processes[State.WAITING]
    assert len(colony.running) == processes[State.RUNNING]
    assert colony.waiting == len(colony.queue) + len(colony.blocked)
    shown = Counter(each.state for each in colony.workflows.values() if each.is_shown)
    for state in State:
        assert shown[state] + colony.closed_workflows[state] == workflows[state]
        if state in FINAL:
            assert colony.closed[state] == processes[state]
