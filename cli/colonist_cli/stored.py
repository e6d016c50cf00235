"""What the commands about stores do: opens them, and tells errors in one line."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, cast

from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Column, Form
from colonist_cli.shell import Shell
from colonist_server.archive.address import has_password
from colonist_server.archive.interface import Archive
from colonist_server.archive.sql import SqlArchive
from colonist_server.backup import check as checking
from colonist_server.backup import drop as dropping
from colonist_server.backup import era as eras
from colonist_server.backup import restore as restoring
from colonist_server.backup import save as saving
from colonist_server.backup.check import Problem, Report
from colonist_server.backup.form import BackupError
from colonist_server.backup.origin import FileOrigin, StoreOrigin
from colonist_server.backup.reader import BackupReader
from colonist_server.backup.restore import Restored
from colonist_server.backup.save import Destination, Saved
from colonist_server.loops.heartbeat import LEASE_S
from colonist_server.repo import keys
from colonist_server.repo.soundness import key_of
from colonist_server.store.etcd.keeping import Status
from colonist_server.store.interface import Store, StoreError
from colonist_server.store.opening import open_store
from colonist_server.store.reading import HasStatus, open_reading

PROBLEMS: Final[Sequence[Column[Problem]]] = (
    Column("key", lambda each: each.key),
    Column("problem", lambda each: each.problem),
    Column("remedy", lambda each: each.remedy),
)

_LOST: Final = "what they write from now on is lost"
_REFUSED: Final = "what is on its way to them is refused, and clients seal it anew"


class Ends(NamedTuple):
    """A store and its archive."""

    store: str
    archive: str


def url(shell: Shell, given: str) -> str:
    """The store that is meant: the one in the state folder, if none is named."""
    return given or f"sqlite:{shell.place.store}"


def show(shell: Shell, values: Mapping[str, object]) -> None:
    """A line for each value."""
    if shell.screen.form is Form.JSON:
        shell.screen.json(dict(values))
        return
    for name, value in values.items():
        shell.screen.line(f"{name:<8}  {value}")


async def back_up(store: str, archive: str, file: Path, *, may_replace: bool) -> Saved:
    """Save a store. Raises `CliError`."""
    version = importlib.metadata.version("colonist")
    destination = Destination(file, version, time.time_ns(), may_replace)
    with _told():
        async with open_reading(store) as found, _archive(archive) as history:
            return await saving.save(found, history, destination)


def verify(file: Path) -> Mapping[str, object]:
    """Read a backup to its end. Raises `CliError`."""
    with _told():
        reader = BackupReader(file)
        end = reader.check()
        about = reader.about
        return {
            "file": str(file),
            "revision": about.revision,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(about.made_ns // 10**9)),
            "version": about.version,
            "items": end.items,
            "rows": end.rows,
        }


async def bring_back(file: Path, store: str, archive: str) -> Restored:
    """Restore a backup. Raises `CliError`."""
    with _told():
        reader = BackupReader(file)
        reader.check()  # before a store is made
        async with _store(store) as target, _archive(archive) as history:
            return await restoring.restore(FileOrigin(reader), target, history)


async def migrate(source: Ends, target: Ends, *, even_if_alive: bool) -> Restored:
    """Copy a store into another. Raises `CliError`."""
    if source.store == target.store:
        raise CliError(Exit.USAGE, "--from and --to are the same store")
    with _told():
        async with AsyncExitStack() as opened:
            found = await opened.enter_async_context(
                _at_rest(source.store, even_if_alive=even_if_alive, else_=_LOST)
            )
            old = await opened.enter_async_context(_archive(source.archive))
            made = await opened.enter_async_context(_store(target.store))
            new = await opened.enter_async_context(_archive(target.archive))
            return await restoring.restore(StoreOrigin(found, old), made, new)


async def check(store: str) -> Report:
    """Read every record. Raises `CliError`."""
    with _told():
        async with open_reading(store) as found:
            return await checking.check(found)


async def status(store: str) -> list[tuple[str, object]]:
    """What a store holds. Raises `CliError`."""
    with _told():
        async with open_reading(store) as found:
            report = await checking.check(found, is_deep=False)
            own = await _properties(found)
    counts = [(f"keys {kind}", count) for kind, count in sorted(report.kinds.items())]
    return [("revision", report.revision), *own, ("content bytes", report.size), *counts]


async def drop(store: str, text: str, *, even_if_sound: bool) -> str:
    """Delete a key. Raises `CliError`."""
    try:
        key = key_of(text)
    except ValueError:
        raise CliError(Exit.USAGE, f"{text[:80]!r} is no key: store check shows them") from None
    with _told():
        async with _store(store) as found:
            return await dropping.drop(found, key, even_if_sound=even_if_sound)


async def begin_era(store: str, *, even_if_alive: bool) -> int:
    """Let nothing sealed before take effect; the minute it is. Raises `CliError`."""
    with _told():
        async with _at_rest(store, even_if_alive=even_if_alive, else_=_REFUSED) as found:
            return await eras.begin_another(found)


async def _properties(found: HasStatus) -> list[tuple[str, object]]:
    told = await found.status()
    if isinstance(told, Status):
        shown = told._asdict() | {"alarms": ", ".join(told.alarms) or "none"}
        return [(name.replace("_", " "), value) for name, value in shown.items()]
    return list(cast("Sequence[tuple[str, object]]", told))


@asynccontextmanager
async def _store(store: str) -> AsyncGenerator[Store]:
    async with await open_store(store) as opened:
        yield opened


@asynccontextmanager
async def _at_rest(store: str, *, even_if_alive: bool, else_: str) -> AsyncGenerator[Store]:
    """A store on which no server is at work; an SQLite file is made by nobody here."""
    async with open_reading(store):
        """It is there."""
    async with _store(store) as opened:
        alive = (await opened.range(keys.NODE, limit=3)).items if opened.is_shared else []
        if alive and not even_if_alive:
            names = ", ".join(keys.name_of_node(item.key) for item in alive)
            raise BackupError(
                f"servers are at work on the store ({names}): stop them (one that was killed is"
                f" believed to be at work for {LEASE_S:.0f} s more), or --force; {else_}"
            )
        yield opened


@asynccontextmanager
async def _archive(address: str) -> AsyncGenerator[Archive | None]:
    if has_password(address):
        raise CliError(
            Exit.USAGE,
            "the address of the archive holds a password, which every user of this machine can see "
            "there: use PGPASSFILE, or ?passfile=FILE in the address",
        )
    if not address:
        yield None
        return
    async with await SqlArchive.open(address) as opened:
        yield opened


@contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except BackupError as error:
        raise CliError(Exit.CONFLICT, str(error)) from None
    except StoreError as error:
        raise CliError(Exit.NOT_STARTED, str(error)) from None
    except OSError as error:
        raise CliError(Exit.USAGE, f"{error.filename}: {error.strerror}") from None
