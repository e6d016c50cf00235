"""The other end of an HTTP/2 connection of ours, on a transport that is a list of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import hpack

from colonist_server.store.etcd import frames
from colonist_server.store.etcd.frames import Frame, Kind, Setting
from colonist_server.store.etcd.http2 import Connection

HEADERS = ((":status", "200"), ("content-type", "application/grpc"))
OK = (("grpc-status", "0"),)


def encode(headers: Sequence[tuple[str, str]]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(headers)


def headers(stream: int, pairs: Sequence[tuple[str, str]], *, is_last: bool = False) -> bytes:
    flags = frames.END_HEADERS | (frames.END_STREAM if is_last else 0)
    return frames.frame(Kind.HEADERS, flags, stream, encode(pairs))


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    size = frames.MAX_FRAME_BYTES
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(frames.frame(Kind.DATA, flags, stream, part) for part in parts)


def answer(stream: int, *messages: bytes) -> bytes:
    """A whole answer."""
    body = data(stream, b"".join(map(frames.message, messages)))
    return headers(stream, HEADERS) + body + headers(stream, OK, is_last=True)


class Wire(asyncio.Transport):
    """What a connection writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_gone

    def close(self) -> None:
        self.is_gone = True

    def abort(self) -> None:
        self.is_gone = True


class Peer:
    """A server by hand: `connection` is ours, `take` is what it has sent."""

    def __init__(self, settings: dict[Setting, int] | None = None) -> None:
        self.wire = Wire()
        self.connection = Connection(asyncio.get_running_loop())
        self.connection.connection_made(self.wire)
        assert self.wire.written.startswith(frames.PREFACE)
        del self.wire.written[: len(frames.PREFACE)]
        self._reader = frames.Reader()
        self.greeting = self.take()
        self.say(frames.settings(settings or {}))
        self.take()

    def say(self, *parts: bytes) -> None:
        self.connection.data_received(b"".join(parts))

    def take(self, kind: Kind | None = None) -> list[Frame]:
        """The frames since the last time, of one kind or all."""
        found = self._reader.feed(bytes(self.wire.written))
        self.wire.written.clear()
        return [each for each in found if kind is None or each.kind == kind]
