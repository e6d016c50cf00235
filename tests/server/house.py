"""A whole server in this process: SQLite, HTTP on a free port, keys in a folder."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from colonist_protocol import codec, envelope
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_server.config import ServerConfig
from colonist_server.main import Server, serve
from colonist_server.rpc.dispatch import Answer
from tests.server.people import World
from tests.support.rooms import OWNER

DEADLINE_S = 20.0


class Got(NamedTuple):
    """What came back over HTTP, taken apart as far as it goes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> Any:
        """The JSON inside a well-formed reply. Raises `AssertionError` for anything else."""
        reply = json.loads(self.body)
        assert set(reply) == {"payloadtype", "payload", "error"}, reply
        assert reply["error"] is (self.status != 200)
        assert (reply["payloadtype"] == "error") is reply["error"]
        return json.loads(base64.b64decode(reply["payload"], validate=True))

    @property
    def code(self) -> str:
        """The code of a well-formed failure, "" for a success."""
        payload = self.payload
        if self.status == 200:
            return ""
        assert set(payload) == {"status", "message", "code", "retry_after_s"}
        assert payload["status"] == self.status
        assert payload["message"]
        return payload["code"]


class House(World):
    """Calls over HTTP."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    @property
    def rooms(self):
        return self.server.rooms

    @property
    def url(self) -> str:
        return self.server.url

    async def answer(self, message: Message, identity: Identity | None) -> Answer:
        got = await self.post(envelope.pack_request(message, identity))
        return Answer(got.status, got.body)

    async def post(
        self, body: bytes | AsyncIterable[bytes], headers: dict[str, str] | None = None
    ) -> Got:
        """Send raw bytes to `POST /api`."""
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with (
            asyncio.timeout(DEADLINE_S),
            self.session.post(f"{self.url}/api", data=data, headers=headers) as reply,
        ):
            return Got(reply.status, dict(reply.headers), await reply.read())

    async def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> Got:
        """Any other request."""
        async with (
            asyncio.timeout(DEADLINE_S),
            self.session.request(method, f"{self.url}{path}", headers=headers) as reply,
        ):
            return Got(reply.status, dict(reply.headers), await reply.read())

    async def until_parked(self, count: int) -> None:
        """Until so many assigns wait. Asks the server over and over: each answer is progress."""
        async with asyncio.timeout(DEADLINE_S):
            while self.rooms.hand_over.parked() != count:
                await self.request("GET", "/livez")


def sign(payload: bytes | str, identity: Identity, *, kind: str | None = None) -> bytes:
    """A body around any payload: bytes are put into base64, a text is taken for base64."""
    text = payload if isinstance(payload, str) else codec.to_base64(payload)
    if kind is None:
        kind = json.loads(payload)["msgtype"]
    return json.dumps(
        {"payloadtype": kind, "payload": text, "signature": identity.sign(text.encode())}
    ).encode()


def config(folder: Path, **settings: Any) -> ServerConfig:
    """A server on a file in the folder, on a free port."""
    given = {"port": 0, "store": f"sqlite:{folder / 'store.db'}", "owner": OWNER.id, **settings}
    return ServerConfig(**given)


@asynccontextmanager
async def house(folder: Path, **settings: Any) -> AsyncGenerator[House]:
    """A server until the block is left, in a task of its own."""
    started: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def run() -> None:
        async with serve(config(folder, **settings)) as server:
            started.set_result(server)
            await stop.wait()

    task = asyncio.create_task(run())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        async with aiohttp.ClientSession() as session:
            yield House(await started, session)
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await task
