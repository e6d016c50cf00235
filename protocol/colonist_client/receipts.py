"""Keeps receipts: sealed replies that name an event, as they came, for `colonist audit verify`.

A receipt is one file, named by the event. Whether it is genuine is seen when it is used.
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
            await asyncio.to_thread(self._keep, event, reply)
        return reply

    async def close(self) -> None:
        """Let go of connections."""
        await self._transport.close()

    def _keep(self, event: str, reply: bytes) -> None:
        """A receipt that cannot be kept is no reason to lose a reply."""
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            number = os.open(
                self._folder / f"{event}.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE
            )
            with os.fdopen(number, "wb") as file:
                file.write(reply)
        except OSError as error:
            log.warning("a receipt is not kept in %s: %s", self._folder, error.strerror)


def event_of(reply: bytes) -> str:
    """The event that a sealed reply names; "" for any other."""
    try:
        seal = codec.decode(reply, ReplyEnvelope, "reply").seal
        return read_reply_seal(seal).event if seal else ""
    except MalformedError:
        return ""
