"""Filling the view from the store: at the start, and whenever the watch was lost."""

from __future__ import annotations

from collections.abc import Set
from itertools import product
from typing import Final

from colonist_core.process import What
from colonist_protocol.errors import CorruptRecordError
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys
from colonist_server.repo.handover import HandOver
from colonist_server.repo.nodes import Node, Nodes
from colonist_server.repo.nouns import Colony, Workflow
from colonist_server.repo.records import decode_closed
from colonist_server.repo.view import View, note_start
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Delete, Guard, Item, Revision

DOUBT_NS: Final = 30 * SECOND_NS

_PAGE: Final = 10_000
_RESULTS: Final = 100
"""Results may be large."""
_COLD: Final = (keys.COLONY, keys.EXECUTOR, keys.USER, keys.FUNCTION)


async def load(writes: Writes) -> Revision:
    """Bring the whole view up to the store; the revision from which to watch.

    What changes meanwhile comes by the watch too: per key the newer revision wins.
    """
    writes.view.is_loading = True
    try:
        return await _load_all(writes)
    finally:
        writes.view.is_loading = False


async def _load_all(writes: Writes) -> Revision:
    view = writes.view
    revision = await writes.newest()
    for prefix in (*_COLD, *view.held, keys.WORKFLOW):
        await _load(writes, view, prefix)
    for workflow in list(view.workflows.values()):
        await _load_graph(writes, view, workflow)
    await _load(writes, view, keys.LIVE)
    _settle_running(view)
    for colony in list(view.colonies.values()):
        is_alone = not (view.watched_revision or writes.store.is_shared)
        await _count(writes, colony, is_alone=is_alone)
        await _tally(writes, view, colony)
    view.loaded(revision)
    return revision


def _settle_running(view: View) -> None:
    """Keys do not say in which order processes were started, nor whether anything stands by them.

    What has been assigned before may have attributes and an output.
    """
    for row in view.rows.values():
        row.has_attributes = row.has_output = row.live().attempt > 0
    for colony in view.colonies.values():
        started = sorted(colony.running.values(), key=lambda row: row.live().started_ns)
        colony.running = {row.pid: row for row in started}


async def _load(writes: Writes, view: View, prefix: bytes) -> None:
    """Of generators' arguments nobody holds the values, and a page of them may be large.

    What is on no page was gone when its page was read: at the latest when the first was, or the
    watch brings it.
    """
    found: set[bytes] = set()
    after = b""
    first: Revision = 0
    while True:
        page = await writes.range(
            prefix, after=after, limit=_PAGE, keys_only=prefix == keys.ARGUMENT
        )
        first = first or page.revision
        for item in page.items:
            view.apply(item.key, item.value, item.modified)
        found.update(item.key for item in page.items)
        if not page.more:
            break
        after = page.items[-1].key
    for key in view.keys(prefix) - found:
        view.apply(key, None, first)


async def _load_graph(writes: Writes, view: View, workflow: Workflow) -> None:
    """Who waits for whom, and how the members ended that have; the others' records come after."""
    wid = workflow.wid
    for prefix in (keys.shape_of(wid), keys.edits_of(wid)):
        for item in (await writes.range(prefix)).items:
            view.apply(item.key, item.value, item.modified)
    after = b""
    while True:
        page = await writes.range(keys.CLOSED + wid, after=after, limit=_RESULTS)
        for item in page.items:
            try:
                live = decode_closed(item.value).live
            except CorruptRecordError as error:
                view.quarantine(item.key, str(error))
                continue
            view.graphs.member_ended(item.key[2:], State(live.state), live.changed_ns)
            note_start(workflow, live)
        if not page.more:
            return
        after = page.items[-1].key


async def _count(writes: Writes, colony: Colony, *, is_alone: bool) -> None:
    """Closed processes are counted here once, then as they come.

    While others write, only a single look is of one revision; what came after it is added.
    """
    colony.recent = []
    for kind, state in product((keys.KIND_PROCESS, keys.KIND_WORKFLOW), State):
        total = 0
        after = b""
        while True:
            page = await writes.range(
                keys.ended_in(colony.tag, state, kind),
                after=after,
                limit=_PAGE if is_alone else 0,
                keys_only=True,
            )
            total += len(page.items)
            if not page.more:
                break
            after = page.items[-1].key
        total += sum(
            change
            for at, *of, change in colony.recent
            if at > page.revision and of == [kind, state]
        )
        if kind == keys.KIND_PROCESS:
            colony.closed[state] = total
            colony.counted_at[state] = page.revision
        else:
            colony.closed_workflows[state] = total
            colony.counted_workflows_at[state] = page.revision
    colony.recent = None


def _tally_one(view: View, colony: Colony, item: Item) -> None:
    try:
        view.tally(colony, item.value, item.modified)
    except CorruptRecordError as error:
        view.quarantine(item.key, str(error))


async def _tally(writes: Writes, view: View, colony: Colony) -> None:
    """Add the runs that were closed since the stored tallies, or since the watch was lost."""
    if not colony.functions:
        return
    through = view.watched_revision
    if not through:
        for function in colony.functions.values():
            function.tally = function.record.tally
        through = min(function.record.through for function in colony.functions.values())
    prefix = keys.ended_in(colony.tag, State.SUCCESS)
    after = b""
    while True:
        page = await writes.range(prefix, after=after, since=through, limit=_PAGE)
        for item in page.items:
            is_counted = item.modified > colony.counted_at[State.SUCCESS]
            # Where the store is shared, own runs are added in the order of the watch too.
            is_added = view.is_own(item.key, item.modified) and not writes.store.is_shared
            if not is_counted and not is_added:
                _tally_one(view, colony, item)
        if not page.more:
            break
        after = page.items[-1].key


async def doubt_lost_replies(writes: Writes, hand_over: HandOver, nodes: Nodes) -> None:
    """After a crash: assignments of a node's last seconds may never have been seen.

    Of this node, started again, and of others that are not back yet. Nothing is written; the
    executor's next assign gets the process again.
    """
    marks = (await writes.range(keys.RUNNING, keys_only=True)).items
    names = {item.key[len(keys.RUNNING) :].decode(errors="replace") for item in marks}
    lost = {name for name in names if name == nodes.name or not nodes.is_alive(name)}
    if lost:
        rows = writes.view.rows.values()
        newest_ns = max((row.live().changed_ns for row in rows), default=0)
        _doubt(writes.view, hand_over, lost, newest_ns - DOUBT_NS)


async def forget_marks(writes: Writes, nodes: Nodes) -> None:
    """Forget that nodes crashed of which nothing runs any more, and which did not come back."""
    live = [row.live() for row in writes.view.rows.values() if row.state == State.RUNNING]
    needed = {each.node for each in live}
    for item in (await writes.range(keys.RUNNING, keys_only=True)).items:
        name = item.key[len(keys.RUNNING) :].decode(errors="replace")
        if name not in needed and not nodes.is_alive(name):
            await writes.commit([Guard(item.key, item.modified)], [Delete(item.key)])


def doubt_replies_of(view: View, hand_over: HandOver, node: Node) -> None:
    """Another node has crashed: so for what it assigned shortly before it last was heard."""
    _doubt(view, hand_over, {node.name}, node.record.clock_ns - DOUBT_NS)


def _doubt(view: View, hand_over: HandOver, names: Set[str], since_ns: int) -> None:
    for row in view.rows.values():
        if row.state != State.RUNNING or row.doubtful:
            continue
        live = row.live()
        fresh = bool(live.events) and live.events[-1].what in (What.ASSIGNED, What.REDELIVERED)
        if fresh and live.node in names and live.changed_ns >= since_ns:
            hand_over.doubt(row, live.executor)
