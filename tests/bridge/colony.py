"""A small honest server for tests of the bridge: real HTTP, real signatures, work handed out once.

It keeps what a long poll needs and nothing else: a waiter is unfiled when its connection is gone,
and work is given to exactly one. `parked` and `until` let a test wait for what must have happened.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from colonist_protocol import codec, envelope
from colonist_protocol.errors import ColonistError, NoProcessError
from colonist_protocol.process import AssignProcess

VERSION = b'{"msgtype":"versionmsg","buildversion":"fake","buildtime":"now"}'


class Colony:
    """Answers `POST /api`.

    `seen` counts requests by (caller, payloadtype); those whose type is in `silent` get no answer.
    """

    def __init__(self) -> None:
        self.url = ""
        self.seen: Counter[tuple[str, str]] = Counter()
        self.waiting: dict[str, deque[asyncio.Future[bytes]]] = {}
        self.given: list[tuple[str, bytes]] = []
        self.answer: Callable[[str, envelope.Envelope], web.Response | bytes | None] = (
            lambda _c, _e: None
        )
        self.silent: set[str] = set()
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def parked(self) -> int:
        """How many long polls wait."""
        return sum(len(line) for line in self.waiting.values())

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait for something that a request changes."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(is_true)

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=4_000_000)
        app.router.add_post("/api", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        host, bound = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{bound}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def give(self, executor: str, process: bytes) -> None:
        """Hand work to the first poll of this executor; raises where none waits."""
        self.waiting[executor].popleft().set_result(process)
        self.given.append((executor, process))

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            return await self._reply(await request.read())
        except ColonistError as error:
            return web.Response(status=error.status, body=envelope.pack_failure(error))

    async def _reply(self, body: bytes) -> web.Response:
        asked = envelope.parse_request(body)
        if asked.payloadtype == "versionmsg":
            await self._note("", asked.payloadtype)
            return web.Response(body=envelope.pack_reply("versionmsg", VERSION))
        caller = envelope.authenticate(asked).caller
        await self._note(caller, asked.payloadtype)
        if asked.payloadtype in self.silent:
            await asyncio.get_running_loop().create_future()
        made = self.answer(caller, asked)
        if isinstance(made, web.Response):
            return made
        if made is None and asked.payloadtype == "assignprocessmsg":
            made = await self._poll(caller, envelope.open_message(asked, AssignProcess).timeout)
        made = made or codec.from_base64(asked.payload)
        return web.Response(body=envelope.pack_reply(asked.payloadtype, made))

    async def _poll(self, caller: str, timeout_s: float) -> bytes:
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        line = self.waiting.setdefault(caller, deque())
        line.append(waiter)
        try:
            await self._tell()
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise NoProcessError("No process available for assignment") from None
        finally:
            if waiter in line:
                line.remove(waiter)
            await self._tell()

    async def _note(self, caller: str, kind: str) -> None:
        self.seen[caller, kind] += 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def running_colony() -> AsyncIterator[Colony]:
    colony = Colony()
    await colony.start()
    try:
        yield colony
    finally:
        await colony.stop()
