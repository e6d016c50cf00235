"""The parts of `colonist audit`: verify in several processes, receipts, export, show."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from colonist_cli.audit import report
from colonist_cli.audit import verify as verifying
from colonist_cli.audit.export import export
from colonist_cli.audit.show import shown
from colonist_cli.audit.verify import Report, verify
from colonist_cli.exits import CliError, Exit
from colonist_client.receipts import request_of
from colonist_protocol.audit import ProcessEvidence
from colonist_protocol.audit_reading import AuditError
from colonist_protocol.identity import Identity
from tests.support.audit_files import Colony, colony, compact, finished, identity, sha3, tagged

STEP = 2_000


@pytest.fixture
def made() -> Colony:
    return colony(3, steps=40)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def check(file: Path, data: bytes, pin: str, **more: int) -> Report:
    file.write_bytes(data)
    return verify(file, pin, **{"jobs": 1, "step": STEP, **more})


# Verify.


def test_several_processes_find_what_one_finds(
    made: Colony, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made.export()
    alone = check(file, data, made.server_id)
    assert alone.sound
    assert check(file, data, made.server_id, jobs=2) == alone
    monkeypatch.setattr(verifying, "_ONE_BUCKET_BYTES", 1)
    assert check(file, data, made.server_id, jobs=2) == alone
    place = data.rindex(b'"attempt":')
    bad = data[:place] + data[place:].replace(b'"attempt":', b'"attempt":1', 1)
    fault = check(file, bad, made.server_id)
    assert not fault.sound
    assert check(file, bad, made.server_id, jobs=2) == fault


@pytest.mark.parametrize("buckets", [1, 1 << 28])
def test_a_request_that_was_used_twice_is_named_where_it_is_used_again(
    made: Colony, file: Path, buckets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_ONE_BUCKET_BYTES", buckets)
    spec = {"conditions": {"colonyname": made.name}}
    request = made.request(made.any().key, {"msgtype": "submitfuncspecmsg", "spec": spec})
    chains = sorted(made.new_id() for _ in range(2))
    for chain in chains:
        made.event(chain, "submitted", request)
    made.checkpoint()
    data = made.export()
    found = check(file, data, made.server_id)
    assert "had 2 events: too many" in found.fault
    lines = data.splitlines()
    assert lines[found.line - 1].startswith(b'{"v":1,"chain":"' + chains[1].encode())


def test_a_file_without_a_checkpoint_proves_nothing(file: Path) -> None:
    made = Colony(1)
    found = check(file, made.export(), made.server_id)
    assert (found.sound, "no checkpoint" in found.fault) == (False, True)


def test_an_older_file_than_the_pin_says_how_to_verify_it(made: Colony, file: Path) -> None:
    data, old = made.export(), made.server_id
    made.rotate_server_key()
    found = check(file, data, made.server_id)
    assert (found.sound, found.line) == (False, 1)
    assert found.fault.endswith(f"before its key was changed, verify with --server-id {old}")


def test_what_can_be_read_only_once_is_refused_at_once(made: Colony, file: Path) -> None:
    os.mkfifo(file)
    read, write = os.pipe()
    for path in (file, Path(f"/dev/fd/{read}"), Path(os.devnull)):
        with pytest.raises(OSError, match="no regular file") as caught:
            verify(path, made.server_id, jobs=1)
        assert caught.value.strerror
        assert caught.value.filename == str(path)
    os.close(read)
    os.close(write)


def test_a_file_that_only_this_process_has_open_is_read_by_others_too(
    made: Colony, file: Path
) -> None:
    file.write_bytes(made.export())
    with file.open("rb") as opened:  # as is /dev/stdin
        assert verify(Path(f"/dev/fd/{opened.fileno()}"), made.server_id, jobs=2, step=STEP).sound


def test_the_last_checkpoint_is_signed_by_the_pinned_key_or_a_later_one(
    made: Colony, file: Path
) -> None:
    old = made.server_id
    made.rotate_server_key()
    data = made.export()
    assert check(file, data, old).sound
    assert "from before the pinned one" in check(file, data, made.server_id).fault
    made.submit()
    made.checkpoint()
    assert check(file, made.export(), made.server_id).sound


def test_history_may_begin_later_where_the_chain_says_so(made: Colony, file: Path) -> None:
    made.event(made.own, "history_forgotten", None, 1)
    made.stated.clear()
    made.checkpoint()
    del made.checkpoints[0]
    found = check(file, made.export(), made.server_id)
    assert (found.sound, found.first_checkpoint) == (True, 2)
    del made.checkpoints[0]
    assert "does not say that what was before" in check(file, made.export(), made.server_id).fault


def test_the_earlier_of_two_faults_is_named(made: Colony, file: Path) -> None:
    """The changes of members are read before all else."""
    named = {"colonyid": identity("x").id, "name": made.name}
    message = {"msgtype": "addcolonymsg", "colony": named}
    made.event(made.own, "colony_added", made.request(made.founder, message))
    made.checkpoint()
    lines = made.lines()
    assert "second time" in check(file, finished(lines), made.server_id).fault
    first = next(n for n, line in enumerate(lines) if line.startswith(b'{"of":"event"'))
    lines[first] = lines[first].replace(b'"payload":"', b'"payload":"AAAA')
    found = check(file, finished(lines), made.server_id)
    assert ("second time" in found.fault, found.line) == (False, first + 1)
    last = made.lines()
    last[-1] = last[-1].replace(b'"', b"'", 2)
    assert "second time" in check(file, finished(last), made.server_id).fault


def test_a_sound_file_says_what_it_does_not_prove(made: Colony, file: Path) -> None:
    made.event(made.own, "history_forgotten", None, 1)
    line, _ = made.chains[made.own][1]
    made.chains[made.own][1] = line, b""
    made.stated.clear()
    made.checkpoint()
    del made.checkpoints[0]
    made.submit()
    found = check(file, made.export(kept=0.5), made.server_id)
    told = "\n".join(report.lines(found))
    for word in ("proven:", "newer than", "not in the file", "forgotten:", "members not checked"):
        assert word in told, told
    assert report.when(10**30) == f"{10**30} ms"


# Receipts.


def receipt(
    made: Colony,
    event: str,
    *,
    process: str = "",
    by: Identity | None = None,
    ok: bool = True,
    re: str = "1" * 64,
    time: int = 5,
) -> bytes:
    payload = b64encode(compact({"processid": process} if process else [])).decode()
    seal = {
        "v": 1,
        "to": "0" * 64,
        "re": re,
        "index": 0,
        "ok": ok,
        "epoch": "",
        "time": time,
        "members": 1,
        "event": event,
    }
    text = b64encode(compact(seal)).decode()
    signature = (by or made.servers[-1]).sign(tagged("colonist:rep:1", payload, text))
    return compact({"payloadtype": "x", "payload": payload, "seal": text, "signature": signature})


def with_receipts(made: Colony, file: Path, receipts: dict[str, bytes]) -> Report:
    folder = file.parent / "receipts"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "folder").mkdir(parents=True)
    for name, data in receipts.items():
        (folder / name).write_bytes(data)
    file.write_bytes(made.export())
    return verify(file, made.server_id, receipts=folder, jobs=1)


def test_receipts_are_found(made: Colony, file: Path) -> None:
    """Of a process that was removed the removal is enough."""
    process = made.submit()
    first = made.heads[process.chain][1]
    made.event(process.chain, "waited_out")
    other = made.submit()
    made.checkpoint()
    made.forget(process)
    made.checkpoint()
    found = with_receipts(
        made,
        file,
        {
            "of a removed one": receipt(made, first, process=process.chain),
            "there": receipt(made, made.heads[other.chain][1]),
            "a read": receipt(made, ""),
        },
    )
    assert (found.sound, found.receipts) == (True, 2), found
    assert "receipts: all 2 found" in "\n".join(report.lines(found))


def test_a_receipt_whose_event_is_not_there_is_named(made: Colony, file: Path) -> None:
    found = with_receipts(made, file, {"mine.json": receipt(made, "a" * 64)})
    assert (found.sound, found.offset, found.line) == (False, -1, 0)
    assert report.fault(found).startswith("receipt mine.json: the event aaaa")


def asked(made: Colony, message: dict[str, object]) -> tuple[bytes, str]:
    """The body of a sealed request, and its digest."""
    request = made.request(made.any().key, message)
    sent = json.loads(request.line)
    body = {
        "payloadtype": message["msgtype"],
        "payload": sent["payload"],
        "seal": sent["seal"],
        "signature": request.sig,
        "index": 2,
    }
    return compact(body), request.req


def closed(made: Colony, process: str, event: str, time: int = 5) -> dict[str, bytes]:
    """A receipt whose reply does not tell of which process it is, and the request."""
    message: dict[str, object] = {"msgtype": "closesuccessfulmsg", "processid": process}
    request, digest = asked(made, message)
    name = f"{event}.json"
    return {name: receipt(made, event, re=digest, time=time), request_of(name): request}


def test_the_request_beside_a_reply_tells_that_its_process_was_removed(
    made: Colony, file: Path
) -> None:
    process = made.submit()
    made.event(process.chain, "waited_out")
    event = made.heads[process.chain][1]
    made.checkpoint()
    made.forget(process)
    made.checkpoint()
    kept = closed(made, process.chain, event)
    found = with_receipts(made, file, kept)
    assert (found.sound, found.receipts) == (True, 1), found
    alone = {name: data for name, data in kept.items() if "request" not in name}
    found = with_receipts(made, file, alone)
    assert f"{event}.request.json could tell whether its process was removed" in found.fault


def forgotten(made: Colony) -> tuple[int, str]:
    """Forget the first checkpoint; when the next one was made, and a process that is there."""
    process = made.submit()
    made.checkpoint()
    made.event(made.own, "history_forgotten", None, 1)
    made.checkpoint()
    del made.checkpoints[0]
    return json.loads(made.checkpoints[0][0])["time"], process.chain


def test_receipts_of_what_is_forgotten_are_counted_apart(file: Path) -> None:
    made = Colony(1)
    for kind in ("user", "executor"):
        made.add(kind)
    made.checkpoint()
    first_ms, there = forgotten(made)
    gone, event = made.new_id(), "a" * 64
    reply_alone = {"mine.json": receipt(made, event, time=first_ms - 1)}
    for kept in (closed(made, gone, event, first_ms - 1), reply_alone):
        found = with_receipts(made, file, kept)
        assert (found.sound, found.receipts, found.forgotten_receipts) == (True, 1, 1), found
        assert "receipts: 0 of 1 found" in "\n".join(report.lines(found))
    change, digest = asked(made, {"msgtype": "pauseassignmentsmsg", "colonyname": made.name})
    for kept in (
        closed(made, gone, event, first_ms),
        closed(made, there, event, first_ms - 1),
        {
            "mine.json": receipt(made, event, re=digest, time=first_ms - 1),
            "mine.request.json": change,
        },
    ):
        assert f"the event {event} is not in the file" in with_receipts(made, file, kept).fault


def test_a_request_that_was_not_answered_so_excuses_nothing(made: Colony, file: Path) -> None:
    process = made.submit()
    kept = closed(made, process.chain, "a" * 64)
    other, _ = asked(made, {"msgtype": "closesuccessfulmsg", "processid": made.new_id()})
    name = request_of(f"{'a' * 64}.json")
    found = with_receipts(made, file, {**kept, name: other})
    assert f"{name} is not the request that the reply beside it answers" in found.fault
    found = with_receipts(made, file, {**kept, name: b"{}"})
    assert f"{name} is no request" in found.fault


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: b"{}",
        lambda made: receipt(made, "a" * 64, by=identity("somebody")),
        lambda made: receipt(made, "a" * 64).replace(b'"payload":"', b'"payload":"AAAA'),
    ],
)
def test_what_is_no_reply_of_the_server_is_no_receipt(
    made: Colony, file: Path, forge: Callable[[Colony], bytes]
) -> None:
    found = with_receipts(made, file, {"mine.json": forge(made)})
    assert "receipt mine.json is no sealed reply of the server" in found.fault


# Export.


async def pages(lines: list[str], size: int = 7) -> AsyncIterator[tuple[str, ...]]:
    for start in range(0, len(lines), size):
        yield tuple(lines[start : start + size])


async def test_an_export_has_the_last_line_that_verify_wants(made: Colony, file: Path) -> None:
    heard: list[int] = []
    lines = [line.decode() for line in made.lines()]
    done = await export(
        pages(lines), file, lambda so_far: heard.append(so_far.bytes), may_replace=False
    )
    written = await asyncio.to_thread(file.read_bytes)
    assert written == made.export()
    found = check(file, made.export(), made.server_id)
    assert (found.sound, found.events) == (True, done.events)
    assert heard == sorted(heard)
    assert done.bytes == len(written)
    with pytest.raises(CliError) as caught:
        await export(pages(lines), file, lambda _: None, may_replace=False)
    assert caught.value.exit is Exit.CONFLICT


async def test_what_others_planted_beside_the_file_is_not_written_to(
    made: Colony, file: Path
) -> None:
    victim = file.with_name("victim")
    victim.write_text("mine")
    file.with_name(f".{file.name}.part").symlink_to(victim)
    lines = [line.decode() for line in made.lines()]
    await export(pages(lines), file, lambda _: None, may_replace=False)
    assert victim.read_text() == "mine"
    assert sorted(kinds(file.parent)) == [stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK]


def link(path: Path) -> None:
    path.symlink_to("/dev/null")


def kinds(folder: Path) -> list[int]:
    return [stat.S_IFMT(each.lstat().st_mode) for each in folder.iterdir()]


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, link])
async def test_only_a_file_is_replaced(file: Path, plant: Callable[[Path], None]) -> None:
    plant(file)
    planted = kinds(file.parent)
    for may_replace in (True, False):
        with pytest.raises(CliError, match="no regular file") as caught:
            await export(pages(["x"]), file, lambda _: None, may_replace=may_replace)
        assert caught.value.exit is Exit.CONFLICT
    assert kinds(file.parent) == planted


@pytest.mark.parametrize("line", ["", "a\nb"])
async def test_what_is_no_line_makes_no_file(file: Path, line: str) -> None:
    with pytest.raises(CliError, match="no line of an audit file"):
        await export(pages(["x", line]), file, lambda _: None, may_replace=False)
    assert list(file.parent.iterdir()) == []


async def test_a_folder_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(CliError, match="cannot be written"):
        await export(pages(["x"]), file / "there", lambda _: None, may_replace=False)


# Show.


def evidence(made: Colony, chain: str) -> ProcessEvidence:
    lines = [part.decode() for pair in made.chains[chain] for part in pair if part]
    covering = [pair for pair in made.checkpoints if chain.encode() in pair[0]][-1:]
    return ProcessEvidence(
        header=made.lines()[0].decode(),
        checkpoints=tuple(part.decode() for pair in covering for part in pair),
        lines=tuple(lines),
    )


def ran(made: Colony) -> str:
    process = made.submit()
    made.assign(process)
    made.checkpoint()
    made.event(process.chain, "requeued", None, 1)
    return process.chain


def test_a_process_is_shown_with_who_did_what(made: Colony) -> None:
    chain = ran(made)
    names = {member.key.id: member.name for member in made.members}
    rows = shown(evidence(made, chain), made.server_id, names)
    assert [(row.what, row.attempt, row.checked) for row in rows] == [
        ("submitted", 0, "signed"),
        ("assigned", 1, "signed"),
        ("requeued", 1, "said by the server, under no checkpoint yet"),
    ]
    assert (rows[0].who in names.values(), rows[2].who) == (True, "the server")
    assert shown(evidence(made, chain), "", {})[0].who == rows[0].id[:12]


def test_an_event_that_is_wrong_ends_the_table(made: Colony) -> None:
    chain = ran(made)
    line, request = made.chains[chain][1]
    made.chains[chain][1] = line.replace(b'"attempt":1', b'"attempt":2'), request
    rows = shown(evidence(made, chain), made.server_id, {})
    assert [row.is_sound for row in rows] == [True, False]
    assert "WRONG: checkpoint" in rows[1].checked


def test_what_is_missing_from_a_process_is_named(made: Colony) -> None:
    chain = ran(made)
    del made.chains[chain][1:]
    with pytest.raises(AuditError, match="is not in the file"):
        shown(evidence(made, chain), made.server_id, {})
    nothing = ProcessEvidence(header=made.lines()[0].decode(), checkpoints=(), lines=())
    assert shown(nothing, "", {}) == []


def test_a_checkpoint_of_another_server_is_none(made: Colony) -> None:
    chain = ran(made)
    with pytest.raises(AuditError, match="the pinned one is"):
        shown(evidence(made, chain), "0" * 64, {})
    made.rotate_server_key()
    with pytest.raises(AuditError, match="from before the pinned one"):
        shown(evidence(made, chain), made.server_id, {})
    assert sha3(b"") != chain
