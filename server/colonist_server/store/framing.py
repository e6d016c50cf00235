"""What goes over a socket between a server and a process of its own: length first."""

from __future__ import annotations

from typing import Final

LENGTH_BYTES: Final = 4


class Frames:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            end = body + int.from_bytes(buffer[start:body], "big")
            if end > len(buffer):
                break
            frames.append(bytes(buffer[body:end]))
            start = end
        del buffer[:start]
        return frames


def framed(body: bytes) -> bytes:
    """A frame."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
