"""A server at work on a store: its rooms are made here, and its loops run. `http` leads in."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from functools import partial
from typing import Any, Final

from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import Identity
from colonist_protocol.server import Backend, ServerInfo, VersionReply
from colonist_protocol.tokens import ServerKeys
from colonist_server.archive.interface import Archive
from colonist_server.config import ServerConfig
from colonist_server.loops import archive_contact, compaction, heartbeat, tallies
from colonist_server.loops import epochs as epoch_loop
from colonist_server.loops.archiver import Archiver
from colonist_server.loops.checkpoints import CheckpointLoop
from colonist_server.loops.crons import CronLoop
from colonist_server.loops.deadlines import Deadlines
from colonist_server.loops.gauges import StoreGauge
from colonist_server.loops.generators import GeneratorLoop
from colonist_server.loops.heartbeat import Heartbeat
from colonist_server.loops.leadership import Leadership
from colonist_server.loops.presence import Presence
from colonist_server.loops.retention import Retention
from colonist_server.loops.watcher import Watcher
from colonist_server.repo import agreement, keys
from colonist_server.repo.archive_claim import claim as claim_archive
from colonist_server.repo.archiving import Archiving
from colonist_server.repo.attempts import Attempts
from colonist_server.repo.attributes import Attributes
from colonist_server.repo.audit import Audit
from colonist_server.repo.births import Births
from colonist_server.repo.checkpoints import Checkpoints
from colonist_server.repo.claimed_archive import ClaimedArchive
from colonist_server.repo.claims import Claims
from colonist_server.repo.clock import Clock
from colonist_server.repo.colonies import Colonies
from colonist_server.repo.cron_ready import ReadyRuns
from colonist_server.repo.cron_runs import CronRuns
from colonist_server.repo.cron_view import CronView, in_use
from colonist_server.repo.crons import Crons
from colonist_server.repo.epochs import Epochs
from colonist_server.repo.firings import Firings
from colonist_server.repo.forgetting import Forgetting
from colonist_server.repo.freshness import Freshness
from colonist_server.repo.functions import Functions
from colonist_server.repo.generator_view import GeneratorView
from colonist_server.repo.generators import Generators
from colonist_server.repo.handover import HandOver, Work
from colonist_server.repo.heads import Heads
from colonist_server.repo.identities import Identities
from colonist_server.repo.journal import Journal
from colonist_server.repo.leftovers import Leftovers
from colonist_server.repo.listing import Listing
from colonist_server.repo.load import doubt_lost_replies, doubt_replies_of, forget_marks, load
from colonist_server.repo.members import Members
from colonist_server.repo.nodes import Nodes
from colonist_server.repo.outputs import Outputs
from colonist_server.repo.owner import Owner
from colonist_server.repo.processes import Processes
from colonist_server.repo.records import SCHEMA
from colonist_server.repo.removal import Removal
from colonist_server.repo.reports import Reports
from colonist_server.repo.results import Results
from colonist_server.repo.retirement import Retirement
from colonist_server.repo.settling import Settling
from colonist_server.repo.standing import Standing
from colonist_server.repo.subscriptions import Subscriptions
from colonist_server.repo.trail import Trail
from colonist_server.repo.view import View
from colonist_server.repo.workflow_listing import WorkflowListing
from colonist_server.repo.workflow_removal import WorkflowRemoval
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Writes
from colonist_server.rpc.dispatch import Dispatch
from colonist_server.rpc.rooms import About, Rooms
from colonist_server.rpc.signing import Signer
from colonist_server.store.interface import Delete, Guard, Put, Store, StoreError
from colonist_server.system import EntropyPool

log = logging.getLogger(__name__)

INSTANCE_BYTES: Final = 12
FAREWELL_S: Final = 8.0
"""Who stops a server waits 30 s for it, and a store that is away costs 10 s with each request."""


@asynccontextmanager
async def at_work(
    config: ServerConfig,
    store: Store,
    clock: Clock,
    owner: str,
    *,
    server_keys: ServerKeys | None = None,
    signer: Signer | None = None,
    gauge: StoreGauge | None = None,
    archive: Archive | None = None,
) -> AsyncGenerator[Dispatch]:
    """The rooms of a server on a store, with their loops running; only the ways in are missing."""
    await _check_schema(store)
    claimed = await claim_archive(store, archive, config.node)
    writes = Writes(store, View(node=config.node, is_shared=store.is_shared), claimed)
    nodes = Nodes(writes.view, clock, name=config.node, instance=os.urandom(INSTANCE_BYTES))
    leadership = Leadership(writes, nodes, clock)
    async with _tasks() as group:
        rooms = _rooms(
            config,
            writes,
            clock,
            owner,
            server_keys=server_keys or ServerKeys(Identity.from_entropy(os.urandom(32))),
            group=group,
            nodes=nodes,
            leadership=leadership,
            fault=lambda: (
                beat.fault
                or rooms.owner.disagreement(nodes.others())
                or agreement.disagreement(rooms.server_keys, nodes.others())
                or (claimed.fault if claimed is not None else "")
            ),
            note=lambda: claimed.note if claimed is not None else "",
            behind_s=lambda: beat.behind_s,
        )
        beat = _heartbeat(config, writes, rooms, leadership)
        claiming = group.create_task(beat.claim())
        deadlines = Deadlines(
            writes.view, rooms.processes, clock, leadership=leadership, nodes=nodes
        )
        firings = Firings(writes, rooms.workflows, clock)
        generators = GeneratorLoop(rooms.generators, firings, clock, leadership)
        ready = ReadyRuns(writes, rooms.workflows, rooms.cron_runs, clock)
        crons = CronLoop(
            writes.view, rooms.crons.view, rooms.cron_runs, ready, clock, leadership=leadership
        )
        presence = _presence(config, writes, rooms, leadership)
        watcher = Watcher(writes, rooms.subscriptions, await load(writes))
        rooms.owner.tell()
        await presence.load()
        await claiming
        await _join(writes, rooms)
        heads = Heads(writes.view, rooms.trail)
        retention = _retention(config, writes, rooms, leadership, heads)
        sweep = partial(_once_known, claimed, rooms.colonies.sweep_remains)
        for work in (partial(forget_marks, writes, nodes), sweep):
            leadership.at_election(partial(_survive, work))
        leadership.at_election(rooms.settling.look_at_all)
        loops: list[Coroutine[Any, Any, None]] = [
            retention.run(),
            watcher.run(),
            rooms.subscriptions.run(),
            deadlines.run(),
            generators.run(),
            crons.run(),
            presence.run(),
            rooms.settling.run(),
            tallies.run(rooms.functions, config.tallies_every_s, leadership),
            beat.run(),
            leadership.run(),
            compaction.run(store, leadership, clock),
            epoch_loop.run(rooms.epochs, writes, leadership),
            _signing(writes, rooms, leadership, heads).run(),
        ]
        loops += [gauge.run()] if gauge is not None else []
        loops += _archiving(config, writes, rooms, leadership, claimed)
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield Dispatch(rooms, group.create_task, signer, config.limits)
            async with _in_time():
                await _lay_down(presence, rooms.functions, leadership)
                await leadership.close()
                await _mark_stopped(writes, config.node)
                await beat.leave()
        finally:
            for task in tasks:
                task.cancel()


async def _join(writes: Writes, rooms: Rooms) -> None:
    """Take up work beside the other nodes, and look after what those that crashed have left."""
    nodes = rooms.nodes
    for told in (
        rooms.owner.usurped(rooms.server_keys.ids),
        rooms.owner.disagreement(nodes.others()),
        agreement.disagreement(rooms.server_keys, nodes.others()),
    ):
        if told:
            raise StoreError(told)
    await doubt_lost_replies(writes, rooms.hand_over, nodes)
    nodes.listen_to_crashes(partial(doubt_replies_of, writes.view, rooms.hand_over))
    await _mark_running(writes, nodes.name)
    if not rooms.epochs.era:
        await rooms.epochs.move_on()


@asynccontextmanager
async def _tasks() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group out of which a single error comes as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        first, *others = errors.exceptions
        if others:
            raise
        raise first from first.__cause__


def _heartbeat(
    config: ServerConfig, writes: Writes, rooms: Rooms, leadership: Leadership
) -> Heartbeat:
    beat = Heartbeat(
        writes,
        rooms.nodes,
        rooms.clock,
        about=heartbeat.About(
            f"http://{config.host}:{config.port}",
            rooms.owner.configured,
            agreement.names(rooms.server_keys),
        ),
        classes=rooms.hand_over.classes,
        leads=lambda: leadership.is_leader,
    )
    rooms.hand_over.interest.on_new = beat.hasten
    return beat


def _presence(
    config: ServerConfig, writes: Writes, rooms: Rooms, leadership: Leadership
) -> Presence:
    return Presence(
        writes,
        rooms.members,
        rooms.clock,
        leadership,
        nodes=rooms.nodes,
        every_s=config.presence_every_s,
        stale_s=config.stale_s,
    )


def _retention(
    config: ServerConfig, writes: Writes, rooms: Rooms, leadership: Leadership, heads: Heads
) -> Retention:
    return Retention(
        writes.view,
        rooms.clock,
        retirement=Retirement(writes, rooms.removal),
        leftovers=Leftovers(writes),
        leadership=leadership,
        policy=config.retention,
        retire_workflows=rooms.workflow_removal.retire,
        forgetting=Forgetting(writes, rooms.checkpoints, heads, rooms.trail),
    )


def _signing(writes: Writes, rooms: Rooms, leadership: Leadership, heads: Heads) -> CheckpointLoop:
    return CheckpointLoop(
        writes,
        rooms.checkpoints,
        heads,
        epochs=rooms.epochs,
        leadership=leadership,
    )


def _archiving(
    config: ServerConfig,
    writes: Writes,
    rooms: Rooms,
    leadership: Leadership,
    archive: ClaimedArchive | None,
) -> list[Coroutine[Any, Any, None]]:
    """The loops of an archive, where there is one."""
    if archive is None:
        return []
    archiver = Archiver(
        writes,
        Archiving(writes, archive, rooms.checkpoints.newest),
        rooms.removal.past,
        rooms.clock,
        policy=config.archiving,
        leads=leadership,
        fold=rooms.functions.fold,
        needed=partial(in_use, writes.view, rooms.crons.view),
    )
    return [archive_contact.run(archive), _once_known(archive, archiver.run)]


async def _once_known(archive: ClaimedArchive | None, work: Work) -> None:
    """Do what also is about the archive as soon as it is known to be the right one."""
    if archive is not None:
        await archive.known()
    await work()


def _rooms(
    config: ServerConfig,
    writes: Writes,
    clock: Clock,
    owner: str,
    *,
    server_keys: ServerKeys,
    group: asyncio.TaskGroup,
    nodes: Nodes,
    leadership: Leadership,
    fault: Callable[[], str],
    note: Callable[[], str],
    behind_s: Callable[[], float],
) -> Rooms:
    def spawn(work: Work) -> None:
        guarded = _survive(work)
        try:
            group.create_task(guarded, context=Context())  # it belongs to no request
        except RuntimeError:  # the server is dying: the next start finds what is undone
            guarded.close()

    births = Births(writes, config.births_bytes)
    outputs = Outputs(writes)
    entropy = EntropyPool()
    trail = Trail(writes, clock)
    checkpoints = Checkpoints(writes, server_keys, clock)
    epochs = Epochs(writes, server_keys, clock, entropy)
    freshness = Freshness(writes, spawn)
    hand_over = HandOver(writes, writes.view, clock, spawn, node=config.node, peers=nodes)
    listing = Listing(writes, births, outputs)
    removal = Removal(writes, births, clock)
    workflow_removal = WorkflowRemoval(writes, births, removal)
    settling = Settling(
        writes, births, workflow_removal, clock, nodes=nodes, leads=lambda: leadership.is_leader
    )
    processes = Processes(
        writes,
        births,
        hand_over,
        outputs,
        clock=clock,
        entropy=entropy,
        spawn=spawn,
        member_ended=settling.look_at_own,
    )
    members = Members(
        writes, processes, clock, trail, freshness, may_reregister=config.may_reregister
    )
    subscriptions = Subscriptions(writes, listing, clock)
    writes.view.graphs.listen(subscriptions)
    workflows = Workflows(writes, births, settling, clock=clock, entropy=entropy)
    attempts = Attempts(writes.view, server_keys, clock)
    attributes = Attributes(writes, config.limits)
    return Rooms(
        view=writes.view,
        nodes=nodes,
        fault=fault,
        note=note,
        behind_s=behind_s,
        leader=lambda: leadership.name,
        colonies=Colonies(writes, os.urandom, trail, removal.past, epochs),
        members=members,
        claims=Claims(writes, clock, trail, members=members, freshness=freshness),
        functions=Functions(writes),
        processes=processes,
        attempts=attempts,
        results=Results(writes, processes, trail, clock, checkpoints),
        reports=Reports(writes, attempts, attributes, clock),
        removal=removal,
        listing=listing,
        journal=Journal(writes, births, attributes, clock),
        workflows=workflows,
        generators=Generators(
            writes, GeneratorView(writes.view), workflows, clock=clock, entropy=entropy
        ),
        crons=Crons(writes, CronView(writes.view), workflows, clock=clock, entropy=entropy),
        cron_runs=CronRuns(writes, workflows, clock),
        workflow_listing=WorkflowListing(writes),
        workflow_removal=workflow_removal,
        settling=settling,
        hand_over=hand_over,
        standing=Standing(writes),
        subscriptions=subscriptions,
        freshness=freshness,
        epochs=epochs,
        server_keys=server_keys,
        writes=writes,
        clock=clock,
        owner=Owner(writes, clock, owner),
        identities=Identities(writes, trail),
        trail=trail,
        checkpoints=checkpoints,
        audit=Audit(writes, checkpoints, server_keys, clock),
        about=_about(config),
    )


async def _survive(work: Work) -> None:
    """Background work may fail alone; what it left undone is found by its record."""
    try:
        await work()
    except Exception:
        log.exception("background work failed")


def _about(config: ServerConfig) -> About:
    version = importlib.metadata.version("colonist")
    backend = Backend(port=config.port, host=config.host)
    return About(
        node=config.node,
        host=config.host,
        port=config.port,
        version=VersionReply(buildversion=version, buildtime=""),
        info=ServerInfo(buildversion=version, buildtime="", backends=[backend]),
        refuses_plain=config.refuses_plain,
    )


async def _check_schema(store: Store) -> None:
    item, restoring = await store.get_many([keys.SCHEMA, keys.RESTORING])
    if restoring is not None:
        raise StoreError(
            "a restore into this store was begun and not finished: repeat `colonist restore`"
        )
    known = str(SCHEMA).encode()
    if item is None:
        # A restore that begins at this moment is noticed by its mark.
        guards = [Guard(keys.SCHEMA, 0), Guard(keys.RESTORING, 0)]
        if await store.commit(guards, [Put(keys.SCHEMA, known)]) is None:
            await _check_schema(store)
    elif item.value != known:
        raise StoreError(
            f"the store was written with schema {item.value[:32].decode(errors='replace')!r}, this"
            f" server knows {SCHEMA}: run the version that wrote it, or take another store"
            " (for etcd: another prefix)"
        )


async def _mark_running(writes: Writes, node: str) -> None:
    """While this key stands, the node has not stopped in order."""
    key = keys.running(node)
    before = await writes.read(key)
    await writes.commit([Guard(key, before.modified if before else 0)], [Put(key, b"")])


async def _lay_down(presence: Presence, functions: Functions, leadership: Leadership) -> None:
    """Store what is only in memory; a store that cannot write does not hinder the end."""
    with _whatever_happens():
        await presence.store()
        if leadership.is_leader:
            await functions.fold()


async def _mark_stopped(writes: Writes, node: str) -> None:
    with _whatever_happens():
        before = await writes.read(keys.running(node))
        if before is not None:
            await writes.commit([Guard(before.key, before.modified)], [Delete(before.key)])


@asynccontextmanager
async def _in_time() -> AsyncGenerator[None]:
    """What is not laid down by then the others treat as that of a node that was killed."""
    try:
        async with asyncio.timeout(FAREWELL_S):
            yield
    except TimeoutError:
        log.warning("stopped without a farewell: the store did not answer in %.0f s", FAREWELL_S)


@contextmanager
def _whatever_happens() -> Generator[None]:
    try:
        yield
    except ColonistError as error:
        log.warning("stopped without laying down: %s", error)
