"""`colonist server`: the central server in the foreground."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from colonist_cli.exits import CliError, Exit, innermost
from colonist_cli.loop import run_until_signal
from colonist_cli.ports import check_free, why_not
from colonist_client import logs
from colonist_server.config import (
    ARCHIVE_AGE_VARIABLE,
    ARCHIVE_COUNT_VARIABLE,
    ServerConfig,
    age_seconds,
    limits,
    refuses_plain,
    retention_age,
    whole_number,
)
from colonist_server.keyring import OWNER_KEY
from colonist_server.main import OWNER_ID_VARIABLE, REREGISTER_VARIABLE, archive_address, serve
from colonist_server.store.interface import StoreError


class Archiving(TypedDict, total=False):
    """Settings of the server, where they differ from its own."""

    archive_age_s: float
    archive_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the flags say."""

    host: str
    port: int
    store: str
    keys: Path | None
    node: str = ""
    retention_age: str = ""
    retention_count: int = 0
    archive: str = field(default="", repr=False)  # a flag may hold what it should not
    archive_after_age: str = ""
    archive_after_count: str = ""
    limits: str = ""
    plain_requests: str = ""


def run_blocking(options: Options, environment: Mapping[str, str]) -> None:
    """Serve until a signal. Raises `CliError` when it cannot start."""
    config = ServerConfig(
        host=options.host,
        port=options.port,
        store=options.store,
        keys=options.keys,
        node=options.node,
        separate_writer=True,
        owner=environment.get(OWNER_ID_VARIABLE, ""),
        refuses_plain=refuses_plain(options.plain_requests, environment),
        may_reregister=environment.get(REREGISTER_VARIABLE, "").lower() == "true",
        retention_age_s=retention_age(options.retention_age, environment),
        retention_count=options.retention_count,
        archive=archive_address(options.archive, environment),
        limits=limits(options.limits, environment),
        **_archiving(options, environment),
    )
    check_free(config.port, "--port", host=config.host)
    logs.begin(logging.WARNING, "%(message)s")
    started(lambda: run_until_signal(lambda stop: _serve(config, stop), is_fast=True), config)


def _archiving(options: Options, environment: Mapping[str, str]) -> Archiving:
    """When what ended goes to the archive, as far as anybody says. Raises `InvalidValueError`."""
    found: Archiving = {}
    if age := options.archive_after_age or environment.get(ARCHIVE_AGE_VARIABLE, ""):
        found["archive_age_s"] = age_seconds(age)
    if count := options.archive_after_count or environment.get(ARCHIVE_COUNT_VARIABLE, ""):
        found["archive_count"] = whole_number(count, "the count of archiving")
    return found


def started(run: Callable[[], None], config: ServerConfig) -> None:
    """Run, and tell in one line why it could not start. Raises `CliError`."""
    try:
        run()
    except (StoreError, OSError, ExceptionGroup) as error:
        match innermost(error):
            case StoreError() as why:
                raise CliError(Exit.NOT_STARTED, str(why)) from None
            case OSError() as why if why.filename is None:
                text = why_not(why, config.host, config.port, "--port")
                raise CliError(Exit.NOT_STARTED, text) from None
            case OSError() as why:
                raise CliError(Exit.NOT_STARTED, f"{why.filename}: {why.strerror}") from None
            case _:
                raise


async def _serve(config: ServerConfig, stop: asyncio.Event) -> None:
    async with serve(config) as server:
        path, owner = config.keys_path / OWNER_KEY, server.rooms.owner.id
        if not config.owner and not server.rooms.owner.is_changed and path.exists():
            owner = f"its key is {path}"
        print(f"serving at {server.url}  store {config.store}  server owner: {owner}", flush=True)
        await stop.wait()
