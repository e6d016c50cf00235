"""Connections to SQLite and PostgreSQL, each durable and within its time."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, cast

from sqlalchemy import Engine, QueuePool, create_engine

from colonist_server.archive.address import Address
from colonist_server.archive.interface import ArchiveAddressError, ArchiveError

BUSY_MS: Final = 5_000
CONNECT_S: Final = 5
STATEMENT_MS: Final = 10_000

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA busy_timeout = {BUSY_MS}",
)
_DEFAULTS: Final = {
    "connect_timeout": CONNECT_S,
    "application_name": "colonist",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": STATEMENT_MS,
}


class Opened(NamedTuple):
    """An engine of one connection, and what makes that connection give up."""

    engine: Engine
    interrupt: Callable[[], None]


class _Pq(Protocol):
    socket: int


def open_engine(address: Address) -> Opened:
    """Nothing is connected yet. Raises `ArchiveError`."""
    return _sqlite(address) if address.is_local else _postgresql(address)


def _sqlite(address: Address) -> Opened:
    current: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        # Not readable for others: it holds the history that the store's file held.
        os.close(os.open(address.target, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(address.target, check_same_thread=False)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        current[:] = [connection]
        return connection

    def interrupt() -> None:
        for connection in current:
            with contextlib.suppress(sqlite3.Error):
                connection.interrupt()

    return Opened(_engine("sqlite://", connect), interrupt)


def _postgresql(address: Address) -> Opened:
    try:
        import psycopg  # noqa: PLC0415 - an extra: only who has a PostgreSQL needs it
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    except ImportError as error:
        raise ArchiveError(
            "an archive in PostgreSQL needs psycopg: pip install 'colonist[postgresql]'"
        ) from error
    current: list[psycopg.Connection[Any]] = []
    try:
        given = conninfo_to_dict(address.target)
    except psycopg.ProgrammingError as error:
        said = address.masked(str(error).strip())
        raise ArchiveAddressError(f"the archive's address {address.shown}: {said}") from None
    wanted: dict[str, Any] = {**_DEFAULTS, **given}

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(autocommit=True, **wanted)
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false)", (str(STATEMENT_MS),)
        )
        row = connection.execute("SHOW synchronous_commit").fetchone()
        if row is not None and row[0] == "off":
            connection.execute("SET synchronous_commit = on")
        connection.autocommit = False
        current[:] = [connection]
        return connection

    def interrupt() -> None:
        for connection in current:
            with contextlib.suppress(OSError, psycopg.Error):
                _hang_up(cast(_Pq, connection.pgconn).socket)

    return Opened(_engine("postgresql+psycopg://", connect), interrupt)


def _hang_up(descriptor: int) -> None:
    """Whoever waits for this connection learns that it is gone."""
    with socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)


def _engine(dialect: str, connect: Callable[[], Any]) -> Engine:
    return create_engine(
        dialect,
        creator=connect,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
    )
