"""The root of the server: makes the rooms, gives them time, randomness and a store, and runs them.

python -m colonist_server.main --host 127.0.0.1 --port 50080 --store sqlite:PATH
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import importlib.metadata
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from colonist_client import keyfile
from colonist_protocol.errors import ColonistError, InvalidValueError
from colonist_protocol.identity import Identity
from colonist_protocol.server import Backend, ServerInfo, VersionReply
from colonist_server.config import ServerConfig, retention_age
from colonist_server.http import app
from colonist_server.loops import tallies
from colonist_server.loops.crons import CronLoop
from colonist_server.loops.deadlines import Deadlines
from colonist_server.loops.generators import GeneratorLoop
from colonist_server.loops.presence import Presence
from colonist_server.loops.retention import Retention
from colonist_server.loops.watcher import Watcher
from colonist_server.repo import keys
from colonist_server.repo.births import Births
from colonist_server.repo.clock import Clock, Timer
from colonist_server.repo.colonies import Colonies
from colonist_server.repo.cron_ready import ReadyRuns
from colonist_server.repo.cron_runs import CronRuns
from colonist_server.repo.cron_view import CronView
from colonist_server.repo.crons import Crons
from colonist_server.repo.firings import Firings
from colonist_server.repo.functions import Functions
from colonist_server.repo.generator_view import GeneratorView
from colonist_server.repo.generators import Generators
from colonist_server.repo.handover import HandOver, Work
from colonist_server.repo.identities import Identities
from colonist_server.repo.journal import Journal
from colonist_server.repo.leftovers import Leftovers
from colonist_server.repo.listing import Listing
from colonist_server.repo.load import doubt_lost_replies, load
from colonist_server.repo.members import Members
from colonist_server.repo.outputs import Outputs
from colonist_server.repo.owner import Owner
from colonist_server.repo.processes import Processes
from colonist_server.repo.records import SCHEMA
from colonist_server.repo.removal import Removal
from colonist_server.repo.retirement import Retirement
from colonist_server.repo.settling import Settling
from colonist_server.repo.subscriptions import Subscriptions
from colonist_server.repo.trail import Trail
from colonist_server.repo.view import View
from colonist_server.repo.workflow_listing import WorkflowListing
from colonist_server.repo.workflow_removal import WorkflowRemoval
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Writes
from colonist_server.rpc.dispatch import Dispatch
from colonist_server.rpc.rooms import About, Rooms
from colonist_server.store.interface import Delete, Guard, Put, Store, StoreError
from colonist_server.store.sqlite import SqliteStore

log = logging.getLogger(__name__)

OWNER_ID_VARIABLE: Final = "COLONIES_SERVER_ID"
REREGISTER_VARIABLE: Final = "COLONIES_ALLOW_EXECUTOR_REREGISTER"
OWNER_KEY: Final = "server-owner.key"
SERVER_KEY: Final = "server.key"
BACKLOG: Final = 4096
POOL_BYTES: Final = 4096
STALLED_S: Final = 5.0
COLLECT_AT: Final = (20_000, 20, 50)
"""Python's defaults cost a lifecycle 5 to 15 % of its time."""


class SystemClock:
    """The machine's time."""

    __slots__ = ("_last_ns", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970; never the same twice, never back."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back when `monotonic` reaches `when`."""
        return self._loop.call_at(when, callback)


class EntropyPool:
    """The system's random bytes, fetched for many ids at once: a call costs as much as 4 KiB."""

    __slots__ = ("_bytes", "_next")

    def __init__(self) -> None:
        self._bytes = b""
        self._next = 0

    def __call__(self, size: int) -> bytes:
        """Bytes that were never given out before."""
        start = self._next
        self._next = start + size
        if self._next > len(self._bytes):
            self._bytes = os.urandom(max(POOL_BYTES, size))
            start, self._next = 0, size
        return self._bytes[start : self._next]


class Server:
    """A running server."""

    def __init__(self, config: ServerConfig, address: tuple[str, int], rooms: Rooms) -> None:
        self.config = config
        self.host, self.port = address
        self.rooms = rooms

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def serve(config: ServerConfig) -> AsyncGenerator[Server]:
    """Run a server until the block is left; then answer whoever waits and close the store.

    Raises `InvalidValueError`, `StoreError`, `OSError` when it cannot start.
    """
    owner = config.owner or _key(config.keys_path / OWNER_KEY, "server owner").id
    _key(config.keys_path / SERVER_KEY, "server")
    in_process = not config.separate_writer
    with _listen(config.host, config.port) as door:
        host, port = door.getsockname()[:2]
        config = dataclasses.replace(config, port=port)
        async with (
            await SqliteStore.open(config.store_path, in_process=in_process) as store,
            at_work(config, store, SystemClock(), owner) as dispatch,
        ):
            _spare_collector()
            async with _open(door, dispatch, store, config.shutdown_s):
                yield Server(config, (host, port), dispatch.rooms)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else, so that a taken one is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _why_not_ready(store: SqliteStore) -> str:
    if not store.writable:
        return "the store refuses writes"
    if store.stalled_s > STALLED_S:
        return f"the store has answered no commit for {store.stalled_s:.0f} s"
    return ""


@asynccontextmanager
async def _open(
    door: socket.socket, dispatch: Dispatch, store: SqliteStore, shutdown_s: float
) -> AsyncGenerator[None]:
    """Let requests in; at the end answer whoever waits, and let what runs finish."""
    runner = web.ServerRunner(
        app.build(dispatch, partial(_why_not_ready, store)),
        shutdown_timeout=shutdown_s,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, door, backlog=BACKLOG).start()
        yield
    finally:
        dispatch.rooms.hand_over.close()
        dispatch.rooms.subscriptions.close()
        await runner.cleanup()


@asynccontextmanager
async def at_work(
    config: ServerConfig, store: Store, clock: Clock, owner: str
) -> AsyncGenerator[Dispatch]:
    """The rooms of a server on a store, with their loops running; only the ways in are missing."""
    await _check_schema(store)
    writes = Writes(store, View())
    async with _tasks() as group:
        rooms = _rooms(config, writes, clock, owner, group)
        deadlines = Deadlines(writes.view, rooms.processes, clock)
        firings = Firings(writes, rooms.workflows, clock)
        generators = GeneratorLoop(rooms.generators, firings, clock)
        ready = ReadyRuns(writes, rooms.workflows, rooms.cron_runs, clock)
        crons = CronLoop(writes.view, rooms.crons.view, rooms.cron_runs, ready, clock)
        presence = _presence(config, writes, rooms, clock)
        watcher = Watcher(writes, rooms.subscriptions, await load(writes))
        rooms.owner.tell()
        await presence.load()
        await doubt_lost_replies(writes, rooms.hand_over, config.node)
        await _mark_running(writes, config.node)
        retention = _retention(config, writes, rooms, clock)
        loops: list[Coroutine[Any, Any, None]] = [
            retention.run(),
            watcher.run(),
            rooms.subscriptions.run(),
            deadlines.run(),
            generators.run(),
            crons.run(),
            presence.run(),
            rooms.settling.run(),
            tallies.run(rooms.functions, config.tallies_every_s),
        ]
        tasks = [group.create_task(loop) for loop in loops]
        group.create_task(_survive(rooms.colonies.sweep_remains))
        try:
            yield Dispatch(rooms, group.create_task)
            await _lay_down(writes, presence, rooms.functions, config.node)
        finally:
            for task in tasks:
                task.cancel()


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


def _presence(config: ServerConfig, writes: Writes, rooms: Rooms, clock: Clock) -> Presence:
    return Presence(
        writes,
        rooms.members,
        clock,
        node=config.node,
        every_s=config.presence_every_s,
        stale_s=config.stale_s,
    )


def _retention(config: ServerConfig, writes: Writes, rooms: Rooms, clock: Clock) -> Retention:
    return Retention(
        writes.view,
        clock,
        retirement=Retirement(writes, rooms.removal),
        leftovers=Leftovers(writes),
        policy=config.retention,
    )


def _rooms(
    config: ServerConfig, writes: Writes, clock: Clock, owner: str, group: asyncio.TaskGroup
) -> Rooms:
    def spawn(work: Work) -> None:
        guarded = _survive(work)
        try:
            group.create_task(guarded)
        except RuntimeError:  # the server is dying: the next start finds what is undone
            guarded.close()

    births = Births(writes, config.births_bytes)
    outputs = Outputs(writes)
    entropy = EntropyPool()
    trail = Trail(writes, clock)
    hand_over = HandOver(writes, writes.view, clock, spawn, node=config.node)
    processes = Processes(
        writes, births, hand_over, outputs, clock=clock, entropy=entropy, spawn=spawn
    )
    listing = Listing(writes, births, outputs)
    removal = Removal(writes, births)
    workflow_removal = WorkflowRemoval(writes, births, removal)
    settling = Settling(writes, births, workflow_removal, clock)
    subscriptions = Subscriptions(writes, listing, clock)
    writes.view.graphs.listen(subscriptions)
    workflows = Workflows(writes, births, settling, clock=clock, entropy=entropy)
    return Rooms(
        view=writes.view,
        colonies=Colonies(writes, os.urandom, trail),
        members=Members(writes, processes, clock, trail, may_reregister=config.may_reregister),
        functions=Functions(writes),
        processes=processes,
        removal=removal,
        listing=listing,
        journal=Journal(writes, births, clock),
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
        subscriptions=subscriptions,
        clock=clock,
        owner=Owner(writes, clock, owner),
        identities=Identities(writes, trail),
        trail=trail,
        about=_about(config),
    )


async def _survive(work: Work) -> None:
    """Background work may fail alone; what it left undone is found by its record."""
    try:
        await work()
    except Exception:
        log.exception("background work failed")


def _spare_collector() -> None:
    """What was loaded stays; what requests leave behind is mostly freed by counting references."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)


def _about(config: ServerConfig) -> About:
    version = importlib.metadata.version("colonist")
    backend = Backend(port=config.port, host=config.host)
    return About(
        node=config.node,
        host=config.host,
        port=config.port,
        version=VersionReply(buildversion=version, buildtime=""),
        info=ServerInfo(buildversion=version, buildtime="", backends=[backend]),
    )


def _key(path: Path, whose: str) -> Identity:
    """Read a key, or make it at the first start and say where it is."""
    if path.exists():
        return keyfile.read(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = Identity.from_entropy(os.urandom(32))
    keyfile.write(path, identity)
    log.warning("made the key of the %s: id=%s file=%s", whose, identity.id, path)
    return identity


async def _check_schema(store: Store) -> None:
    item = await store.get(keys.SCHEMA)
    if item is None:
        await store.commit([Guard(keys.SCHEMA, 0)], [Put(keys.SCHEMA, str(SCHEMA).encode())])
    elif item.value != str(SCHEMA).encode():
        raise StoreError(
            f"the store was written with schema {item.value.decode(errors='replace')!r}, "
            f"this server knows {SCHEMA}: run the version that wrote it"
        )


async def _mark_running(writes: Writes, node: str) -> None:
    """While this key stands, the node has not stopped in order."""
    key = keys.node(node)
    before = await writes.read(key)
    await writes.commit([Guard(key, before.modified if before else 0)], [Put(key, b"")])


async def _lay_down(writes: Writes, presence: Presence, functions: Functions, node: str) -> None:
    """Store what is only in memory; a store that cannot write does not hinder the end."""
    try:
        await presence.store()
        await functions.fold()
        await _mark_stopped(writes, node)
    except ColonistError as error:
        log.warning("stopped without laying down: %s", error)


async def _mark_stopped(writes: Writes, node: str) -> None:
    before = await writes.read(keys.node(node))
    if before is not None:
        await writes.commit([Guard(before.key, before.modified)], [Delete(before.key)])


async def run(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(config) as server:
        log.warning("serving at %s store=%s", server.url, config.store)
        await stop.wait()
        log.warning("stopping: answering whoever waits")


def configure(arguments: list[str]) -> ServerConfig:
    """Flags over environment over defaults. Raises `InvalidValueError`."""
    default = ServerConfig()
    parser = argparse.ArgumentParser(prog="colonist-server", description="The central server.")
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port)
    parser.add_argument("--store", default=default.store, help="sqlite:PATH")
    parser.add_argument("--keys", type=Path, default=None, help="folder of key files")
    parser.add_argument("--node", default=default.node, help="this node's name")
    parser.add_argument("--retention-age", default="", help="forget what ended so long ago: 30d")
    parser.add_argument("--retention-count", type=int, default=0, help="closed processes to keep")
    flags = parser.parse_args(arguments)
    return ServerConfig(
        host=flags.host,
        port=flags.port,
        store=flags.store,
        keys=flags.keys,
        node=flags.node,
        separate_writer=True,
        owner=os.environ.get(OWNER_ID_VARIABLE, ""),
        may_reregister=os.environ.get(REREGISTER_VARIABLE, "").lower() == "true",
        retention_age_s=retention_age(flags.retention_age, os.environ),
        retention_count=flags.retention_count,
    )


def run_blocking(config: ServerConfig) -> int:
    """Serve until a signal; the exit code: 0 stopped in order, 1 could not start."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform

        new_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        new_loop = None
    _lift_file_limit()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run(config))
    except (InvalidValueError, StoreError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - one line for a person, the cause is in it
        return 1
    return 0


def _lift_file_limit() -> None:
    """Each parked executor is an open file; the usual soft limit of 1 024 is far too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        config = configure(sys.argv[1:])
    except InvalidValueError as error:
        sys.exit(str(error))
    sys.exit(run_blocking(config))


if __name__ == "__main__":
    main()
