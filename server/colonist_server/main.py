"""The root of the server: gives it a store, the machine's time, keys and a way in, and runs it.

python -m colonist_server.main --host 127.0.0.1 --port 50080 --store sqlite:PATH
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from colonist_client import memory
from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.tokens import ServerKeys
from colonist_server.archive.address import has_password, parse
from colonist_server.archive.interface import Archive
from colonist_server.archive.sql import SqlArchive
from colonist_server.config import (
    ARCHIVE_AGE_VARIABLE,
    ARCHIVE_COUNT_VARIABLE,
    ARCHIVE_VARIABLE,
    ServerConfig,
    age_seconds,
    limits,
    refuses_plain,
    retention_age,
    whole_number,
)
from colonist_server.http import app, figures
from colonist_server.keyring import Keyring
from colonist_server.loops.gauges import StoreGauge
from colonist_server.repo.owner import stored_owner
from colonist_server.rpc.dispatch import Dispatch
from colonist_server.rpc.rooms import Rooms
from colonist_server.rpc.signing import Signer, beside
from colonist_server.store.interface import Store, StoreError
from colonist_server.store.measuring import measure
from colonist_server.store.opening import is_shared, open_store
from colonist_server.system import SystemClock
from colonist_server.work import at_work

log = logging.getLogger(__name__)

OWNER_ID_VARIABLE: Final = "COLONIES_SERVER_ID"
REREGISTER_VARIABLE: Final = "COLONIES_ALLOW_EXECUTOR_REREGISTER"
BACKLOG: Final = 4096
COLLECT_AT: Final = (30_000, 20, 50)
"""Python's defaults cost a lifecycle 5 to 15 % of its time."""


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
    keys = Keyring(config.keys_path, Custody(os.environ))
    server_keys = keys.server_keys()
    with _listen(config.host, config.port) as door:
        host, port = door.getsockname()[:2]
        config = config.at(port, is_shared=is_shared(config.store))
        async with (
            await open_store(config.store, separate_writer=config.separate_writer) as store,
            _archive(config.archive) as archive,
            beside(server_keys.current.identity) as signer,
            _at_work(config, store, archive, keys, server_keys=server_keys, signer=signer) as (
                dispatch,
                ways,
            ),
        ):
            _spare_collector()
            async with _open(door, dispatch, ways, config.shutdown_s):
                yield Server(config, (host, port), dispatch.rooms)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else, so that a taken one is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


@asynccontextmanager
async def _archive(address: str) -> AsyncGenerator[Archive | None]:
    if not address:
        yield None
        return
    async with SqlArchive(parse(address)) as archive:
        yield archive


@asynccontextmanager
async def _at_work(
    config: ServerConfig,
    store: Store,
    archive: Archive | None,
    ring: Keyring,
    *,
    server_keys: ServerKeys,
    signer: Signer,
) -> AsyncGenerator[tuple[Dispatch, web.Server]]:
    """A server at work, and the ways in to it, which also tell what it knows of itself."""
    owner = config.owner or ring.owner_id(await stored_owner(store))
    gauge = StoreGauge(partial(measure, store, config.store))
    async with at_work(
        config,
        store,
        SystemClock(),
        owner,
        server_keys=server_keys,
        signer=signer,
        gauge=gauge,
        archive=archive,
    ) as dispatch:
        rooms = dispatch.rooms

        def told() -> dict[str, float]:
            return figures.of_work(rooms) | gauge.figures()

        def note() -> str:
            notes = (gauge.note(), rooms.note(), rooms.view.corrupt_note())
            return "\n".join(filter(None, notes))

        yield dispatch, app.build(dispatch, rooms.fault, told, note)


@asynccontextmanager
async def _open(
    door: socket.socket, dispatch: Dispatch, ways: web.Server, shutdown_s: float
) -> AsyncGenerator[None]:
    """Let requests in; at the end answer whoever waits, and let what runs finish."""
    runner = web.ServerRunner(ways, shutdown_timeout=shutdown_s)
    await runner.setup()
    try:
        await web.SockSite(runner, door, backlog=BACKLOG).start()
        yield
    finally:
        dispatch.rooms.hand_over.close()
        dispatch.rooms.subscriptions.close()
        await runner.cleanup()


def _spare_collector() -> None:
    """What was loaded stays; what requests leave behind is mostly freed by counting references."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)


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
    parser.add_argument(
        "--store", default=default.store, help="sqlite:PATH, or etcd://HOST,HOST/PREFIX"
    )
    parser.add_argument("--keys", type=Path, default=None, help="folder of key files")
    parser.add_argument("--node", default="", help="this node's name, its own on a shared store")
    parser.add_argument("--retention-age", default="", help="forget what ended so long ago: 30d")
    parser.add_argument("--retention-count", type=int, default=0, help="closed processes to keep")
    parser.add_argument(
        "--archive",
        default="",
        help="where old history goes: sqlite:PATH, or postgresql://user@host/database",
    )
    parser.add_argument(
        "--archive-after-age",
        default=os.environ.get(ARCHIVE_AGE_VARIABLE, "300s"),
        help="it goes there so long after its end: 300s, 12h",
    )
    parser.add_argument(
        "--archive-after-count",
        default=os.environ.get(ARCHIVE_COUNT_VARIABLE, str(default.archive_count)),
        help="closed processes that the store keeps at most",
    )
    parser.add_argument(
        "--limits", default="", help="what callers may do: rate=100,polls=8; see howto/limits.md"
    )
    parser.add_argument(
        "--plain-requests",
        default="",
        metavar="allow|refuse",
        help="what becomes of the server owner's requests that are not sealed",
    )
    flags = parser.parse_args(arguments)
    return ServerConfig(
        host=flags.host,
        port=flags.port,
        store=flags.store,
        keys=flags.keys,
        node=flags.node,
        separate_writer=True,
        owner=os.environ.get(OWNER_ID_VARIABLE, ""),
        refuses_plain=refuses_plain(flags.plain_requests, os.environ),
        may_reregister=os.environ.get(REREGISTER_VARIABLE, "").lower() == "true",
        retention_age_s=retention_age(flags.retention_age, os.environ),
        retention_count=flags.retention_count,
        archive=archive_address(flags.archive, os.environ),
        archive_age_s=age_seconds(flags.archive_after_age),
        archive_count=whole_number(flags.archive_after_count, "the count of archiving"),
        limits=limits(flags.limits, os.environ),
    )


def archive_address(flag: str, environment: Mapping[str, str]) -> str:
    """Where history goes; the flag wins, "" where nobody says. Raises `InvalidValueError`."""
    if has_password(flag):
        raise InvalidValueError(
            "--archive holds a password, which every user of this machine can see there: put the "
            f"address into a file of mode 0600 and its name into {ARCHIVE_VARIABLE}_FILE, or use "
            "PGPASSFILE"
        )
    return flag or Custody(environment).secret(ARCHIVE_VARIABLE, f"{ARCHIVE_VARIABLE}_FILE")


def run_blocking(config: ServerConfig) -> int:
    """Serve until a signal; the exit code: 0 stopped in order, 1 could not start."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform

        new_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        new_loop = None
    memory.close(os.environ)
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
