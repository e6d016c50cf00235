"""An archive in a table of SQLite or PostgreSQL.

Writes and reads have a thread and a connection each, so that neither waits for the other.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Self

from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy.schema import CreateTable

from colonist_server.archive.address import Address, parse
from colonist_server.archive.engines import open_engine
from colonist_server.archive.interface import ArchiveError, ArchiveFormatError, Page, Row
from colonist_server.archive.lane import DEADLINE_S, Lane
from colonist_server.store.laws import KEYS_END, prefix_end

SCHEMA: Final = "1"
KEYS_AT_ONCE: Final = 500
SWEPT_AT_ONCE: Final = 2_000
PAGE_ROWS: Final = 1_000
PAGE_BYTES: Final = 4_194_304

_DATA: Final = MetaData()
_ROWS: Final = Table(
    "archive",
    _DATA,
    Column("k", LargeBinary, primary_key=True),
    Column("v", LargeBinary, nullable=False),
)
_META: Final = Table(
    "archive_meta",
    _DATA,
    Column("name", String(32), primary_key=True),
    Column("value", String(256), nullable=False),
)
_UPSERT: Final = text(
    "INSERT INTO archive (k, v) VALUES (:k, :v) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
)
_NEW_META: Final = text(
    "INSERT INTO archive_meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"
)
_NOTHING: Final = literal(b"", LargeBinary)
_SOME: Final = _ROWS.c.k.in_(bindparam("keys", expanding=True))
_LOCK: Final = text("SELECT pg_advisory_xact_lock(1131375727)")
"""Two nodes that start at once make the tables one after the other."""


class SqlArchive:
    """`Archive` by SQLAlchemy. Nothing is connected before `open` or `meet`."""

    __slots__ = ("_address", "_identity", "_reads", "_writes")

    def __init__(self, address: Address, *, time_s: float = DEADLINE_S) -> None:
        self._address = address
        self._identity = ""
        self._reads = self._lane("archive-reads", time_s)
        self._writes = self._lane("archive-writes", time_s)

    @classmethod
    async def open(cls, address: str, *, time_s: float = DEADLINE_S) -> Self:
        """Open an archive, made where there is none yet. Raises `ArchiveError`."""
        made = cls(parse(address), time_s=time_s)
        try:
            await made.meet(may_make=True)
        except BaseException:
            await made.close()
            raise
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<SqlArchive {self._address.shown} {self._identity}>"

    @property
    def identity(self) -> str:
        """Drawn when the archive was made."""
        return self._identity

    @property
    def is_local(self) -> bool:
        """SQLite is."""
        return self._address.is_local

    async def meet(self, *, may_make: bool) -> str:
        """See `Archive`."""
        prepare = self._prepare if may_make else self._look
        self._identity = await self._writes.run(prepare)
        return self._identity

    async def put(self, rows: Sequence[Row]) -> None:
        """In the order of their keys, so that two who write at once do not wait for each other."""
        if rows:
            values = [{"k": row.key, "v": row.value} for row in sorted(rows)]
            await self._writes.run(lambda connection: _execute(connection, _UPSERT, values))

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        """See `Archive`."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Row] = {}
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            part = wanted[start : start + KEYS_AT_ONCE]
            query = select(_ROWS.c.k, _ROWS.c.v).where(_SOME).params(keys=part)
            found.update((row.key, row) for row in await self._read(query))
        return [found.get(key) for key in keys]

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page:
        """See `Archive`."""
        k = _ROWS.c.k
        query = _under(prefix, select(k, _NOTHING if keys_only else _ROWS.c.v))
        query = query.order_by(k.desc() if reverse else k)
        if after:
            query = query.where(k < after if reverse else k > after)
        if limit:
            query = query.limit(limit + 1)
        rows = await self._read(query)
        more = 0 < limit < len(rows)
        return Page(rows[:limit] if limit else rows, more)

    async def delete(self, keys: Sequence[bytes]) -> None:
        """See `Archive`."""
        for start in range(0, len(keys), KEYS_AT_ONCE):
            await self._delete(keys[start : start + KEYS_AT_ONCE])

    async def delete_range(self, prefix: bytes) -> None:
        """See `Archive`."""
        more = True
        while more:
            page = await self.range(prefix, limit=SWEPT_AT_ONCE, keys_only=True)
            await self.delete([row.key for row in page.rows])
            more = page.more

    async def snapshot(self) -> AsyncGenerator[list[Row]]:
        """Pages of a bounded number of bytes, however large the values are."""
        k, v = _ROWS.c.k, _ROWS.c.v
        after = b""
        while True:
            last = _last_of_page(await self._sizes(after))
            if not last:
                return
            yield await self._read(select(k, v).where(k > after, k <= last).order_by(k))
            after = last

    async def adopt(self, identity: str) -> None:
        """See `Archive`."""
        name = {"name": "identity"}

        def replace(connection: Connection) -> None:
            if connection.execute(select(_ROWS.c.k).limit(1)).first() is not None:
                raise ArchiveError(
                    f"the archive {self._address.shown} is not empty: restore into a new one"
                )
            connection.execute(delete(_META).where(_META.c.name == bindparam("name")), name)
            connection.execute(insert(_META), {**name, "value": identity})

        await self._writes.run(replace)
        self._identity = identity

    async def close(self) -> None:
        """See `Archive`."""
        await self._reads.close()
        await self._writes.close()

    # -- inside

    def _lane(self, name: str, time_s: float) -> Lane:
        engine, interrupt = open_engine(self._address)
        return Lane(name, engine, interrupt=interrupt, say=self._say, time_s=time_s)

    def _say(self, what: str) -> str:
        return f"the archive {self._address.shown}: {self._address.masked(what)}"

    def _prepare(self, connection: Connection) -> str:
        """The tables, made where they are missing; the identity."""
        if not self._address.is_local:
            connection.execute(_LOCK)
        for table in (_ROWS, _META):
            connection.execute(CreateTable(table, if_not_exists=True))
        new = {"schema": SCHEMA, "identity": secrets.token_hex(16)}
        _execute(connection, _NEW_META, [{"name": name, "value": new[name]} for name in new])
        return self._look(connection)

    def _look(self, connection: Connection) -> str:
        """The identity; changes nothing, since somebody may be restoring the database."""
        if not inspect(connection).has_table(_META.name):
            return ""
        query: Select[Any, Any] = select(_META.c.name, _META.c.value)
        meta = {str(row[0]): str(row[1]) for row in connection.execute(query)}
        schema = meta.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise ArchiveFormatError(
                self._say(
                    f"archive_meta says schema {schema[:32]!r}, this server knows {SCHEMA}:"
                    " run the version that wrote it"
                )
            )
        return meta.get("identity", "")

    async def _read(self, query: Select[Any, Any]) -> list[Row]:
        return await self._reads.run(
            lambda connection: [
                Row(bytes(row[0]), bytes(row[1])) for row in connection.execute(query)
            ]
        )

    async def _sizes(self, after: bytes) -> list[tuple[bytes, int]]:
        k, v = _ROWS.c.k, _ROWS.c.v
        query: Select[Any, Any] = select(k, func.length(v)).where(k > after).order_by(k)
        return await self._reads.run(
            lambda connection: [
                (bytes(row[0]), int(row[1])) for row in connection.execute(query.limit(PAGE_ROWS))
            ]
        )

    async def _delete(self, keys: Sequence[bytes]) -> None:
        query = delete(_ROWS).where(_SOME)
        await self._writes.run(lambda connection: _execute(connection, query, {"keys": list(keys)}))


def _under(prefix: bytes, query: Select[Any, Any]) -> Select[Any, Any]:
    end = prefix_end(prefix)
    query = query.where(_ROWS.c.k >= prefix)
    return query if end == KEYS_END else query.where(_ROWS.c.k < end)


def _execute(connection: Connection, statement: Any, values: Any) -> None:
    connection.execute(statement, values)


def _last_of_page(sizes: Sequence[tuple[bytes, int]]) -> bytes:
    """The last key of what fits a page; at least one does."""
    last = b""
    total = 0
    for key, size in sizes:
        total += size
        if last and total > PAGE_BYTES:
            break
        last = key
    return last
