"""Replies that nobody takes hold a bounded memory, and who takes them is left alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from colonist_protocol.envelope import pack_request
from colonist_protocol.process import GetProcesses, State
from colonist_server.http import unread
from colonist_server.http.doorway import MAX_UNREAD_BYTES
from colonist_server.http.unread import BUDGET_BYTES, MAX_HELD_BYTES, STALL_S, Unread
from tests.server.house import DEADLINE_S, House, house
from tests.support.clock import virtual
from tests.support.rooms import COLONY, key

MB = 2**20


class Pipe:
    """A transport with so many bytes unread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_cut = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_cut = True


def pipes(*sizes: int) -> tuple[Unread, list[Pipe]]:
    """Connections that came one after another, and take nothing."""
    made = Unread(asyncio.get_running_loop())
    all = [Pipe(size) for size in sizes]
    for pipe in all:
        came(made, pipe)
    return made, all


def came(made: Unread, pipe: Any) -> None:
    made.enter(pipe, pipe)


@virtual
async def test_within_the_budget_nobody_is_hurried() -> None:
    made, all = pipes(BUDGET_BYTES // 2, BUDGET_BYTES // 2)
    await asyncio.sleep(1000)
    assert not any(pipe.is_cut for pipe in all)
    assert made.cut == 0


@virtual
async def test_beyond_it_who_takes_nothing_is_cut_off_the_oldest_first() -> None:
    made, all = pipes(30 * MB, 30 * MB)
    await asyncio.sleep(2)
    new = Pipe(20 * MB)
    came(made, new)
    await asyncio.sleep(STALL_S - 2.5)
    assert not any(pipe.is_cut for pipe in all)
    await asyncio.sleep(2)
    assert [pipe.is_cut for pipe in (*all, new)] == [True, False, False]
    await asyncio.sleep(1000)
    assert [pipe.is_cut for pipe in (*all, new)] == [True, False, False]
    assert made.cut == 1


@virtual
async def test_who_takes_something_is_left_alone() -> None:
    made, (slow, stuck) = pipes(60 * MB, 60 * MB)

    async def read() -> None:
        while slow.size:
            await asyncio.sleep(STALL_S * 0.7)
            slow.size -= MB
        made.leave(slow)

    await read()
    assert (slow.is_cut, stuck.is_cut) == (False, True)


@virtual
async def test_more_than_all_may_hold_is_never_held_for_long() -> None:
    made, all = pipes(*[41 * MB] * 6)
    for _ in range(3):
        await asyncio.sleep(1)
        for pipe in all:
            pipe.size -= 1  # drop by drop
    new = Pipe(41 * MB)
    came(made, new)
    await asyncio.sleep(0.01)
    assert [pipe.is_cut for pipe in (*all, new)] == [True] + [False] * 6
    assert sum(pipe.size for pipe in (*all, new) if not pipe.is_cut) <= MAX_HELD_BYTES


@virtual
async def test_who_has_gone_is_forgotten() -> None:
    made, all = pipes(*[60 * MB] * 4)
    for pipe in all[:3]:
        made.leave(pipe)
    made.leave(all[0])
    await asyncio.sleep(1000)
    assert not any(pipe.is_cut for pipe in all)


@pytest.fixture
async def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[House]:
    """A server that has much to tell, and little patience."""
    monkeypatch.setattr(unread, "BUDGET_BYTES", MB // 2)
    monkeypatch.setattr(unread, "STALL_S", 0.3)
    monkeypatch.setattr(unread, "SWEEP_S", 0.05)
    async with house(tmp_path) as made:
        await made.found("ada")
        await made.enrol("uma")
        for _ in range(7):
            await made.submit("uma", args=["x" * 700_000])
        yield made


def asking(origin: str) -> bytes:
    message = GetProcesses(colonyname=COLONY, count=100, state=State.WAITING)
    body = pack_request(message, key("uma"))
    return (
        f"POST /api HTTP/1.1\r\nHost: x\r\n{origin}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def ask(home: House, data: bytes, room: int) -> socket.socket:
    """A connection that asks."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, (home.server.host, home.server.port))
    await loop.sock_sendall(made, data)
    return made


async def until(home: House, is_so: Callable[[int], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so(await _cut(home)):
            pass


async def _cut(home: House) -> int:
    text = (await home.request("GET", "/metrics")).body.decode()
    name = "colonist_slow_readers_total "
    return next(int(row.split()[1]) for row in text.splitlines() if row.startswith(name))


async def take(sock: socket.socket) -> int:
    """How much comes until the connection ends or the reply is whole."""
    loop = asyncio.get_running_loop()
    data = b""
    try:
        while more := await loop.sock_recv(sock, MB):
            data += more
            if data.endswith(b'"error":false}'):
                break
    except ConnectionError:
        pass
    sock.close()
    return len(data)


@pytest.mark.parametrize("origin", ["", "Origin: https://x\r\n"])
async def test_a_large_reply_that_nobody_takes_ends_its_connection(
    full: House, origin: str
) -> None:
    stuck = await ask(full, asking(origin), 4096)
    await until(full, lambda cut: cut == 1)
    assert await take(await ask(full, asking(origin), MB)) > 6 * MB
    assert await take(stuck) < 6 * MB
    assert await _cut(full) == 1


async def test_what_strangers_do_not_take_counts_from_less_on(
    full: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    enter = Unread.enter

    def counting(self: Unread, who: object, transport: asyncio.Transport) -> None:
        counted.append(transport.get_write_buffer_size())
        enter(self, who, transport)

    monkeypatch.setattr(Unread, "enter", counting)
    figures = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    stuck = await ask(full, figures, 4096)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        while not counted:
            await loop.sock_sendall(stuck, figures * 30)
            await full.request("GET", "/livez")
    assert MAX_UNREAD_BYTES < counted[0] < 2 * MAX_UNREAD_BYTES
    stuck.close()
