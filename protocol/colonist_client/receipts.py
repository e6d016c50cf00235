"""Keeps receipts: sealed replies that name an event, as they came, for `colonist audit verify`.

A receipt is one file, named by the event; beside it stands the request, which tells what the event
is about where the reply does not. Whether they are genuine is seen when they are used.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from colonist_client.transport import Transport
from colonist_protocol import codec
from colonist_protocol.envelope import ReplyEnvelope
from colonist_protocol.errors import MalformedError
from colonist_protocol.seal import read_reply_seal

log = logging.getLogger(__name__)

REPLY_END: Final = ".json"
REQUEST_END: Final = ".request.json"

MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


class ReceiptKeeper:
    """A transport that keeps the receipts among the replies that it brings."""

    def __init__(self, transport: Transport, folder: Path) -> None:
        self._transport = transport
        self._folder = folder

    @property
    def way(self) -> str:
        """How it goes, for people."""
        return self._transport.way

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        """Send one request body and return the reply body. Raises `UnreachableError`."""
        reply = await self._transport.exchange(body, wait_s=wait_s)
        event = event_of(reply)
        if event:
            await asyncio.to_thread(self._keep, event, body, reply)
        return reply

    async def close(self) -> None:
        """Let go of connections."""
        await self._transport.close()

    def _keep(self, event: str, request: bytes, reply: bytes) -> None:
        """A receipt that cannot be kept is no reason to lose a reply."""
        name = event + REPLY_END
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._write(request_of(name), request)
            self._write(name, reply)
        except OSError as error:
            log.warning("a receipt is not kept in %s: %s", self._folder, error.strerror)

    def _write(self, name: str, data: bytes) -> None:
        number = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE)
        with os.fdopen(number, "wb") as file:
            file.write(data)


def request_of(name: str) -> str:
    """The file with the request of a receipt."""
    return name.removesuffix(REPLY_END) + REQUEST_END


def event_of(reply: bytes) -> str:
    """The event that a sealed reply names; "" for any other."""
    try:
        seal = codec.decode(reply, ReplyEnvelope, "reply").seal
        return read_reply_seal(seal).event if seal else ""
    except MalformedError:
        return ""
