"""Evidence by the command: real work, exported, checked offline; and a store that was edited."""

from __future__ import annotations

import json
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from colonist_server.repo import keys
from colonist_server.repo.records import decode_closed, encode
from tests.support.colonist import run, running

DEADLINE_S = 60.0
UP = ("up", "--port", "0", "--broker-port", "0")


def ask(home: Path, *words: str, code: int = 0) -> str:
    done = run(*words, home=home)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def verified(home: Path, file: Path, code: int = 0) -> dict[str, Any]:
    done = run("audit", "verify", str(file), "-o", "json", home=home)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def proven(home: Path, file: Path) -> dict[str, Any]:
    """Export until the checkpoints have come up with what happened."""
    until = time.monotonic() + DEADLINE_S
    while True:
        ask(home, "audit", "export", str(file), "--force")
        found = verified(home, file)
        if not found["unproven"]:
            return found
        assert time.monotonic() < until


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colony that ran processes, removed one, and changed its members; its server stopped."""
    made = tmp_path_factory.mktemp("home")
    with running(*UP, home=made, until="In another terminal"):
        proven(made, made / "early.jsonl")
        for number in range(3):
            done = run("call", "echo", str(number), home=made, COLONIST_RECEIPTS=str(made / "kept"))
            assert done.returncode == 0, done.stderr
        listed = json.loads(ask(made, "process", "list", "--state", "success", "-o", "json"))
        first, second, _ = (each["processid"] for each in listed)
        (made / "id").write_text(second)
        shown = json.loads(ask(made, "audit", "show", second, "-o", "json"))
        whats = [each["what"] for each in shown]
        assert (whats[:2], whats[-1]) == (["submitted", "assigned"], "succeeded")
        assert {each["who"] for each in shown} >= {"user"}
        ask(made, "process", "remove", first)
        ask(made, "user", "add", "zoe")
        ask(made, "user", "remove", "zoe")
        found = proven(made, made / "sound.jsonl")
        assert (found["removed"], found["chains"]) == (1, 4)
        assert found["members"] == ""
    return made


def test_an_export_is_private_and_not_replaced(home: Path) -> None:
    file = home / "sound.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(home.glob(".*.part"))


def test_without_a_pin_nothing_is_verified(home: Path, tmp_path: Path) -> None:
    file = str(home / "sound.jsonl")
    done = run("audit", "verify", file, home=tmp_path)
    assert (done.returncode, "--server-id" in done.stderr) == (2, True)
    other = run("audit", "verify", file, "--server-id", "0" * 64, home=tmp_path)
    assert (other.returncode, "the pinned one is" in other.stderr) == (1, True)


def test_what_was_promised_in_replies_is_in_the_file(home: Path, tmp_path: Path) -> None:
    words = ("audit", "verify", str(home / "sound.jsonl"), "--receipts")
    kept = home / "kept"
    assert len(list(kept.iterdir())) == 6, "with their requests"
    assert "receipts: all 3 found" in ask(home, *words, str(kept))
    lost = ("audit", "verify", str(home / "early.jsonl"), "--receipts", str(kept))
    assert "is not in the file" in ask(home, *lost, code=1)


def test_a_flipped_byte_is_named(home: Path, tmp_path: Path) -> None:
    data = bytearray((home / "sound.jsonl").read_bytes())
    place = data.rindex(b'"attempt":1')
    data[place + 10] ^= 2
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(data)
    line = data[:place].count(b"\n") + 1
    told = ask(home, "audit", "verify", str(bad), code=1)
    assert f"line {line}, byte " in told
    assert "checkpoint" in told


def test_who_edits_the_store_offline_is_found_out(home: Path, tmp_path: Path) -> None:
    """An event of a process has another time: whoever has the store but not the server's key."""
    pid = bytes.fromhex((home / "id").read_text())
    with sqlite3.connect(home / "state" / "store.db") as connection:
        [(value,)] = connection.execute("SELECT v FROM kv WHERE k = ?", (keys.closed(pid),))
        closed = decode_closed(value)
        *before, last = closed.live.events
        events = (*before, replace(last, time_ms=last.time_ms + 1000))
        edited = replace(closed, live=replace(closed.live, events=events))
        connection.execute("UPDATE kv SET v = ? WHERE k = ?", (encode(edited), keys.closed(pid)))
    connection.close()
    with running(*UP, home=home, until="In another terminal"):
        file = tmp_path / "edited.jsonl"
        ask(home, "audit", "export", str(file))
    found = verified(home, file, code=1)
    assert found["chain"] == pid.hex()
    assert "names another event" in found["fault"]
