"""What an archive says when its database is away, slow or not what was meant; secrets stay so."""

import asyncio
import os
import signal
import sqlite3
import stat
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from colonist_server.archive.address import parse
from colonist_server.archive.interface import (
    ArchiveAddressError,
    ArchiveError,
    ArchiveUnavailableError,
    Row,
)
from colonist_server.archive.sql import SqlArchive
from tests.support.postgres import PASSWORD, USER, Postgres, postgres


@pytest.mark.parametrize(
    "text",
    [
        *("", "sqlite:", "sqlite:///x", "mysql://h/d", "postgresql://h", "postgresql://h/", "x.db"),
        *("postgresql://u:pa[ss@h]/d", "postgresql://u:secret@h"),
    ],
)
def test_what_is_no_address_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ArchiveAddressError, match="give sqlite:PATH or postgresql://") as refused:
        parse(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:sesame@h:1/d?sslmode=require",
        "postgresql://h/d?user=u&password=sesame",
        "postgres://u:sesame@h1:1,h2:2/d",
    ],
)
def test_no_address_shows_its_password(text: str) -> None:
    address = parse(text)
    assert address.target == text
    assert "sesame" not in address.shown + repr(address) + str(address)
    assert address.shown == text.replace("sesame", "***")
    assert address.masked("no sesame here") == "no *** here"


async def test_a_wrong_password_is_told_and_not_shown(server: Postgres) -> None:
    url = f"postgresql://{USER}:wr0ng@127.0.0.1:{server.port}/postgres"
    with pytest.raises(ArchiveUnavailableError, match="password authentication failed") as refused:
        await SqlArchive.open(url)
    chain: BaseException | None = refused.value
    while chain is not None:
        assert "wr0ng" not in f"{chain!r}"
        chain = chain.__cause__ or chain.__context__


async def test_a_password_may_stand_in_the_address_or_in_a_file(
    server: Postgres, tmp_path: Path
) -> None:
    word = quote(PASSWORD, safe="")
    async with await SqlArchive.open(
        f"postgresql://{USER}:{word}@127.0.0.1:{server.port}/postgres"
    ) as archive:
        assert word not in repr(archive)
        assert PASSWORD not in repr(archive)
    lines = tmp_path / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    lines.write_text(f"*:*:*:*:{escaped}\n")
    lines.chmod(0o600)
    await (await SqlArchive.open(f"{server.url()}?passfile={lines}")).close()


async def test_a_server_that_starts_again_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with postgres() as own:
        async with await SqlArchive.open(own.url()) as archive:
            await archive.put([Row(b"k", b"1")])
            own.stop()
            for _ in range(2):
                with pytest.raises(ArchiveUnavailableError, match="the archive postgresql://"):
                    await archive.put([Row(b"k", b"2")])
            own.start()
            assert await archive.get_many([b"k"]) == [Row(b"k", b"1")]
            own.stop()
            own.start()
            await archive.put([Row(b"k", b"3")])  # the lost connection is not noticed by anybody
            assert await archive.get_many([b"k"]) == [Row(b"k", b"3")]


async def test_a_server_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with postgres() as own:
        async with await SqlArchive.open(own.url(), time_s=1.0) as archive:
            await archive.get_many([b"k"])
            backend = _backends(own.pid)
            for pid in backend:
                os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(ArchiveUnavailableError, match="no answer within 1 s"):
                await archive.get_many([b"k"])
            assert time.monotonic() - began < 3
            for pid in backend:
                os.kill(pid, signal.SIGCONT)
            await archive.put([Row(b"k", b"v")])
            assert await archive.get_many([b"k"]) == [Row(b"k", b"v")]


def _backends(postmaster: int) -> list[int]:
    """The children of a server that serve a connection."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return [int(pid) for pid, name in names.items() if USER in name]


async def test_nothing_takes_effect_after_its_time(tmp_path: Path) -> None:
    """Who gave up may rely on it that nothing follows."""
    path = tmp_path / "archive.db"
    async with await SqlArchive.open(f"sqlite:{path}") as archive:
        archive._writes._time_s = 0.2
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveUnavailableError):
            await archive.put([Row(b"k", b"v")])
        other.execute("ROLLBACK")
        other.close()
        archive._writes._time_s = 5.0
        # The next in the same lane comes after whatever is left of the first.
        async with asyncio.timeout(10):
            while True:
                try:
                    await archive.put([Row(b"l", b"v")])
                except ArchiveUnavailableError:
                    continue
                break
        assert (await archive.range(b"")).rows == [Row(b"l", b"v")]


async def test_no_file_of_an_archive_is_readable_for_others(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    async with await SqlArchive.open(f"sqlite:{path}") as archive:
        await archive.put([Row(b"k", b"v")])
        files = [path, *(path.with_name(f"archive.db-{part}") for part in ("wal", "shm"))]
        modes = {file: stat.S_IMODE(file.stat().st_mode) for file in files}
        assert modes == dict.fromkeys(modes, 0o600)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be taken for one" * 40])
async def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "archive.db"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="not a database"):
        await SqlArchive.open(f"sqlite:{path}")


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="No such file"):
        await SqlArchive.open(f"sqlite:{tmp_path}/none/archive.db")
