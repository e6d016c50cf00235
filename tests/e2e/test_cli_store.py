"""Backup, restore and migration by the command, on real files and a real etcd."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from msgspec import structs

from colonist_protocol.tokens import ERA_BYTES
from colonist_server.repo import keys
from colonist_server.repo.records import EpochRecord, decode_epoch
from colonist_server.store.interface import Guard, Put
from colonist_server.store.opening import open_store
from tests.support import etcd
from tests.support.colonist import run, running


def ask(home: Path, *words: str, code: int = 0) -> str:
    done = run(*words, home=home)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def fill(home: Path, store: Path) -> None:
    """A colony with work in it, its server killed by nobody."""
    with running("up", "--port", "0", "--broker-port", "0", home=home, until="Ctrl-C stops it"):
        for number in range(3):
            ask(home, "call", "echo", str(number))
        backed = json.loads(ask(home, "backup", str(home / "live.bak"), "-o", "json"))
        assert backed["items"] > 10
        assert "another server has this store" in ask(
            home, "restore", str(home / "live.bak"), "--store", f"sqlite:{store}", code=9
        )
        assert "another server has this store" in ask(home, "store", "new-era", code=9)


def rows(path: Path) -> dict[bytes, bytes]:
    """What a store's file holds, but for the minute, tallies and what is of nodes."""
    with sqlite3.connect(path) as connection:
        found = dict(connection.execute("SELECT k, v FROM kv WHERE k > x''").fetchall())
    connection.close()
    left_out = (b"n/", b"nl", b"nh/", b"m/running", b"f/", keys.EPOCH)
    return {key: value for key, value in found.items() if not key.startswith(left_out)}


def epoch(path: Path) -> EpochRecord:
    """The minute that a store's file tells."""
    with sqlite3.connect(path) as connection:
        [(value,)] = connection.execute("SELECT v FROM kv WHERE k = ?", (keys.EPOCH,)).fetchall()
    connection.close()
    return decode_epoch(value)


def assert_went_on(path: Path, was: EpochRecord) -> None:
    """The minute is kept, its era is left for the server that starts to make anew."""
    assert was.era
    assert epoch(path) == structs.replace(was, era=b"")


async def be_at_work(there: str) -> None:
    """Say in the store that a node is at work on it."""
    async with await open_store(there) as store:
        node = keys.node("elsewhere")
        assert await store.commit([Guard(node, 0)], [Put(node, b"")]) is not None


WORDS = [["store", "check"], ["backup", "x.bak"], ["store", "status"], ["store", "new-era"]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    fill(made, made / "state" / "store.db")
    return made


def test_backup_of_a_running_server_is_private_and_whole(home: Path) -> None:
    file = home / "live.bak"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(ask(home, "restore", str(file), "--verify", "-o", "json"))["items"] > 10


def test_damaged_backup_makes_no_store(home: Path, tmp_path: Path) -> None:
    data = bytearray((home / "live.bak").read_bytes())
    data[len(data) // 2] ^= 4
    bad = tmp_path / "bad.bak"
    bad.write_bytes(data)
    told = ask(home, "restore", str(bad), "--store", f"sqlite:{tmp_path / 'new.db'}", code=7)
    assert "damaged at byte" in told
    assert list(tmp_path.iterdir()) == [bad]


def test_store_goes_over_etcd_and_back(home: Path, tmp_path: Path) -> None:
    first, second = home / "state" / "store.db", tmp_path / "back.db"
    with etcd.running_cluster(1, etcd.Options()) as cluster:
        there = f"etcd://{cluster.endpoints[0]}/moved"
        ask(home, "store", "migrate", "--from", f"sqlite:{first}", "--to", there)
        assert (
            "every record can be read" in run("store", "check", "--store", there, home=home).stderr
        )
        status = ask(home, "store", "status", "--store", there)
        assert "quota bytes" in status
        assert "keys p/" in status
        told = ask(home, "store", "migrate", "--from", f"sqlite:{first}", "--to", there, code=7)
        assert "not empty" in told
        ask(home, "backup", str(tmp_path / "etcd.bak"), "--store", there)
        ask(home, "store", "migrate", "--from", there, "--to", f"sqlite:{second}")
        asyncio.run(be_at_work(there))
        told = ask(home, "store", "new-era", "--store", there, code=7)
        assert "servers are at work on the store (elsewhere): stop them" in told
        assert "--force" in told
        done = ask(home, "store", "new-era", "--store", there, "--force", "-o", "json")
        assert json.loads(done)["minute"] == epoch(first).n
    assert rows(second) == rows(first)
    assert_went_on(second, epoch(first))
    third = tmp_path / "third.db"
    ask(home, "restore", str(tmp_path / "etcd.bak"), "--store", f"sqlite:{third}")
    assert rows(third) == rows(first)
    assert_went_on(third, epoch(first))


def test_copied_file_begins_another_era(home: Path, tmp_path: Path) -> None:
    first, copied = home / "state" / "store.db", tmp_path / "copied.db"
    shutil.copyfile(first, copied)
    was = epoch(copied)
    for _ in range(2):
        done = ask(home, "store", "new-era", "--store", f"sqlite:{copied}", "-o", "json")
        assert json.loads(done) == {"begun": "another era", "minute": was.n}
        now = epoch(copied)
        assert structs.replace(now, era=was.era) == was
        assert len(now.era) == ERA_BYTES
        assert now.era != was.era
        was = now
    assert rows(copied) == rows(first)


def test_corrupted_record_is_named_and_dropped(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    ask(home, "restore", str(home / "live.bak"), "--store", f"sqlite:{path}")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE kv SET v = x'c1' WHERE k ="
            " (SELECT max(k) FROM kv WHERE k < x'7a30' AND k > x'7a2f')"
        )
    connection.close()
    store = f"sqlite:{path}"
    done = run("store", "check", "--store", store, "-o", "json", home=home)
    assert done.returncode == 1
    [problem] = json.loads(done.stdout)
    assert problem["key"].startswith("z/")
    assert "not readable" in problem["problem"]
    assert problem["key"] in problem["remedy"]
    ask(home, "store", "drop", problem["key"], "--store", store)
    assert problem["key"] in ask(home, "store", "drop", problem["key"], "--store", store, code=7)
    done = run("store", "check", "--store", store, home=home)
    assert "its end is missing" in done.stdout


@pytest.mark.parametrize("words", WORDS)
def test_store_that_is_not_there_is_told_and_not_made(tmp_path: Path, words: list[str]) -> None:
    told = ask(tmp_path, *words, "--store", f"sqlite:{tmp_path / 'none.db'}", code=9)
    assert "there is no such store" in told
    assert not (tmp_path / "none.db").exists()
