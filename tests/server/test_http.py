"""The rim: health, CORS, strange requests, bad connections, starting and stopping."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from colonist_protocol.envelope import (
    MAX_BODY_BYTES,
    MAX_LARGE_BODY_BYTES,
    Failure,
    pack_request,
    parse_reply,
)
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.process import AssignProcess, State
from colonist_protocol.server import Version
from colonist_protocol.tokens import read_epoch
from colonist_server.http import bodies
from colonist_server.main import configure, serve
from colonist_server.repo import keys
from colonist_server.store.interface import Guard, Put, StoreError
from colonist_server.store.sqlite import SqliteStore
from tests.server.house import DEADLINE_S, House, config, house
from tests.support.rooms import COLONY, OWNER, key

BROWSER = {"Origin": "https://somewhere.example"}


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_asks_whether_it_lives_is_answered(home: House, method: str, path: str) -> None:
    got = await home.request(method, path)
    assert got.status == 200
    assert got.body == (b"ok" if (method, path) == ("GET", "/readyz") else b"")
    assert got.headers["Content-Type"].startswith("text/plain")


async def test_the_newest_token_is_to_be_had_unsigned(home: House) -> None:
    got = await home.request("GET", "/v1/epoch")
    assert (got.status, got.headers["Content-Type"]) == (200, "application/json")
    token = home.rooms.epochs.token
    assert read_epoch(token) is not None
    assert json.loads(got.body) == {"epoch": token}


async def test_a_server_that_cannot_write_is_not_ready_and_says_so(home: House) -> None:
    home.rooms.members._writes.store._go_read_only("the disk is full")
    got = await home.request("GET", "/readyz")
    assert (got.status, got.body) == (503, b"the store refuses writes: the disk is full")
    assert (await home.request("GET", "/livez")).status == 200
    assert await home.list(State.SUCCESS) == [home.succeeded]
    with pytest.raises(Exception, match="503 unavailable") as refused:
        await home.submit("uma")
    assert "disk is full" in str(refused.value)


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/x", "/pubsub/x", "/figures", "/relay"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_there_are_no_other_ways_in(home: House, method: str, path: str) -> None:
    assert (await home.request(method, path)).status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_the_one_way_in_is_post(home: House, method: str) -> None:
    assert (await home.request(method, "/api")).status in (404, 405)


@pytest.mark.parametrize("kind", ["", "application/json", "text/plain", "image/png", "nonsense"])
async def test_any_content_type_will_do(home: House, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else None
    got = await home.post(pack_request(Version(), None), headers)
    assert (got.status, got.code) == (200, "")
    assert got.headers["Content-Type"].startswith("application/json")


async def test_a_browser_may_ask(home: House) -> None:
    asked = {**BROWSER, "Access-Control-Request-Method": "POST"}
    got = await home.request("OPTIONS", "/api", asked)
    assert got.status == 204
    assert got.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in got.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in got.headers["Access-Control-Allow-Headers"]
    for body in (pack_request(Version(), None), b"not json"):
        got = await home.post(body, BROWSER)
        assert got.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in (await home.post(b"not json")).headers


# -- connections


async def _open(home: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(home.server.host, home.server.port)


def _head(length: int, more: str = "") -> bytes:
    return f"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n".encode()


async def test_one_connection_carries_many_requests(home: House) -> None:
    reader, writer = await _open(home)
    body = pack_request(Version(), None)
    for _ in range(3):
        writer.write(_head(len(body)) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["error"] is False
    writer.close()
    await writer.wait_closed()


async def test_slow_and_half_open_connections_hurt_nobody_else(home: House) -> None:
    body = pack_request(Version(), None)
    starts = [
        b"P",
        b"POST /api HTTP/1.1\r\nHost:",
        _head(len(body)),
        _head(len(body)) + body[:-1],
        _head(len(body), "Expect: 100-continue\r\n"),
        b"",
    ]
    slow = [await _open(home) for _ in range(20) for _ in starts]
    for (_, writer), start in zip(slow, starts * 20, strict=True):
        writer.write(start)
        await writer.drain()
    submitted = (await home.submit("uma", priority=9)).processid
    assert (await home.assign("ada")).processid == submitted
    reader, writer = slow[3]
    writer.write(body[-1:])
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    for _, writer in slow:
        writer.close()
    assert (await home.request("GET", "/health")).status == 200


async def test_a_body_that_does_not_come_is_told_so(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.01)
    reader, writer = await _open(home)
    writer.write(_head(100) + b"{")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    failure = parse_reply(await reader.readexactly(length))
    assert isinstance(failure, Failure)
    assert failure.code == "too_slow"
    writer.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /api HTTP/9.9\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_is_refused_and_the_server_lives(home: House, raw: bytes) -> None:
    reader, writer = await _open(home)
    writer.write(raw)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_S):
        head = await reader.read(20)
    assert not head or head.split()[1] in (b"400", b"431")
    writer.close()
    assert (await home.request("GET", "/health")).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense"])
async def test_a_body_that_is_not_encoded_as_it_says_is_the_senders_fault(
    home: House, encoding: str
) -> None:
    got = await home.post(b"\x1f\x8bnot really", {"Content-Encoding": encoding})
    assert got.status == 400
    assert (await home.request("GET", "/health")).status == 200


async def test_a_small_body_that_unpacks_to_a_large_one_is_too_large(home: House) -> None:
    got = await home.post(gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"})
    assert got.status in (400, 413)


@pytest.mark.parametrize(
    ("size", "chunked"),
    [
        (MAX_LARGE_BODY_BYTES + 1, False),
        (20_000_000, False),
        (MAX_BODY_BYTES + 1, True),
        (20_000_000, True),
    ],
)
async def test_a_large_body_is_refused_in_the_form_of_the_protocol(
    home: House, size: int, chunked: bool
) -> None:
    async def parts():
        for _ in range(size // 65_536 + 1):
            yield b" " * 65_536

    got = await home.post(parts() if chunked else b" " * size)
    assert (got.status, got.code) == (413, "too_large")
    assert (await home.request("GET", "/health")).status == 200


async def test_a_large_body_is_for_workflows_only(home: House) -> None:
    body = pack_request(Version(), None)
    got = await home.post(body + b" " * MAX_BODY_BYTES)
    assert (got.status, got.code) == (413, "too_large")


async def test_who_leaves_in_the_middle_of_a_body_is_no_fault_of_ours(
    home: House, caplog: pytest.LogCaptureFixture
) -> None:
    body = pack_request(Version(), None)
    for start in (_head(len(body)), _head(len(body)) + body[:10]):
        _, writer = await _open(home)
        writer.write(start)
        await writer.drain()
        writer.transport.abort()
    for _ in range(20):
        assert (await home.request("GET", "/health")).status == 200
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def test_who_hangs_up_while_waiting_for_work_waits_no_more(home: House) -> None:
    await home.assign("ada")  # what was waiting
    body = pack_request(AssignProcess(colonyname=COLONY, timeout=60), key("ben"))
    _, writer = await _open(home)
    writer.write(_head(len(body)) + body)
    await home.until_parked(1)
    writer.transport.abort()
    await home.until_parked(0)
    id = (await home.submit("uma")).processid
    assert (await home.assign("ada")).processid == id


async def test_many_connections_at_once_are_all_answered(home: House) -> None:
    body = pack_request(Version(), None)

    async def one() -> bytes:
        reader, writer = await _open(home)
        writer.write(_head(len(body), "Connection: close\r\n") + body)
        answer = await reader.read()
        writer.close()
        return answer

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*[one() for _ in range(300)])
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


# -- starting and stopping


async def test_a_stop_answers_who_waits_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        await made.populate()
        await made.employ()
        await made.assign("ada")
        bodies = [
            pack_request(AssignProcess(colonyname=COLONY, timeout=600), key(name))
            for name in ("ada", "ben") * 5
        ]
        connections = [await _open(made) for _ in bodies]
        for (_, writer), body in zip(connections, bodies, strict=True):
            writer.write(_head(len(body)) + body)
        await made.until_parked(len(bodies))
    async with asyncio.timeout(DEADLINE_S):
        for reader, writer in connections:
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 404")
            assert b'"error":true' in answer
            writer.close()


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        await made.populate()
        await made.employ()
        before = {state: await made.list(state) for state in State}
        statistics = await made.statistics()
        running, closed = await made.read(made.running), await made.read(made.succeeded)
    async with house(tmp_path) as again:
        assert {state: await again.list(state) for state in State} == before
        assert await again.statistics() == statistics
        assert await again.read(closed.processid) == closed
        assert await again.read(running.processid) == running


async def test_the_first_start_makes_keys_and_says_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, owner="") as made:
        owner = made.rooms.owner.id
    path = tmp_path / "keys" / "server-owner.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"id={owner}" in caplog.text
    assert str(path) in caplog.text
    assert path.read_text().strip() not in caplog.text
    async with house(tmp_path, owner="") as made:
        assert made.rooms.owner.id == owner


async def _start(folder: Path, port: int = 0) -> tuple[int, list[str]]:
    """Start a server that cannot start: its exit code and what it said."""
    flags = ["--port", str(port), "--store", f"sqlite:{folder / 'store.db'}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "colonist_server.main",
        *flags,
        env={**os.environ, "COLONIES_SERVER_ID": OWNER.id},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [
        line for line in said.decode().splitlines() if not line.startswith("WARNING")
    ]


async def test_a_second_server_on_a_store_says_so_and_does_not_start(
    home: House, tmp_path: Path
) -> None:
    code, lines = await _start(tmp_path)
    assert code == 1
    assert len(lines) == 1
    assert "store.db" in lines[0]
    assert (await home.request("GET", "/health")).status == 200


async def test_a_port_in_use_is_said_and_nothing_is_left_behind(
    home: House, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    code, lines = await _start(other, port=home.server.port)
    assert code == 1
    assert len(lines) == 1
    assert "address already in use" in lines[0].lower()
    async with house(other) as made:
        assert (await made.request("GET", "/health")).status == 200


async def test_a_store_of_another_version_is_not_touched(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "store.db") as store:
        await store.commit([Guard(keys.SCHEMA, 0)], [Put(keys.SCHEMA, b"999")])
    with pytest.raises(StoreError, match="schema '999'"):
        async with serve(config(tmp_path)):
            pass


async def test_an_error_inside_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serve(config(tmp_path)):
            _ = 1 / 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "99999"],
        ["--store", "postgres:x"],
        ["--store", "sqlite:"],
        ["--node", "a/b"],
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(InvalidValueError):
        configure(arguments)


def test_the_environment_names_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLONIES_SERVER_ID", OWNER.id)
    monkeypatch.setenv("COLONIES_ALLOW_EXECUTOR_REREGISTER", "true")
    made = configure(["--port", "1", "--store", "sqlite:x/y.db"])
    assert (made.owner, made.may_reregister, made.port) == (OWNER.id, True, 1)
    assert made.keys_path == Path("x/keys")
    monkeypatch.setenv("COLONIES_SERVER_ID", "me")
    with pytest.raises(InvalidValueError):
        configure([])
