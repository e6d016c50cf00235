"""HTTP keeps the laws of transports."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from aiohttp import web

from colonist_client.http import HttpTransport
from tests.laws.transport import laws


class HttpLink:
    """A server behind HTTP that goes and comes at one port."""

    def __init__(self) -> None:
        self.answer = laws.echo
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def bring_back(self) -> None:
        """Listen, at the port of the first time."""
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_post("/api", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def take_away(self) -> None:
        """Stop listening and cut every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        return web.Response(body=await self.answer(await request.read()))


@pytest.mark.usefixtures("link")
class TestHttpTransport(laws.TransportLaws):
    """All laws, over a real socket."""

    @pytest_asyncio.fixture
    async def link(self) -> AsyncGenerator[HttpLink]:
        made = HttpLink()
        await made.bring_back()
        made.transport = HttpTransport(made.url)
        yield made
        await made.transport.close()
        await made.take_away()
