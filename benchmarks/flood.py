"""Strangers that send rubbish at a set rate: a program of its own, told on stdin when to.

`python -m benchmarks.flood PORT FACE`: each line `go RATE` or `stop` on stdin is obeyed; a `stop`
is answered by one line of JSON that says what was sent, and how it was answered.

Open loop: what is due is sent whether or not the rest was answered, over a connection that is idle
or, where none is, over a new one. So a server that answers late or closes wins nothing by it.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections import Counter
from itertools import cycle
from typing import Final

from benchmarks.wire import Key, spec

KINDS: Final = ("unsigned", "short", "random", "stranger", "base64", "garbage")
FACES: Final = {
    "mixed": (KINDS, 0.5),
    "kept": (KINDS, 0.0),
    "new": (KINDS, 1.0),
    "strangers": (("stranger",), 0.5),
}
"""By name: the kinds of requests that take turns, and which share comes over new connections."""
ADDRESS: Final = "127.0.0.1"
"""That of the members: as behind one NAT."""
MAX_OPEN: Final = 4_096
TICK_S: Final = 0.005
VARIANTS: Final = 500

_HEAD: Final = b"POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
_RESET: Final = struct.pack("ii", 1, 0)
_SIGNATURE: Final = b'"signature":"'


def _request(body: bytes) -> bytes:
    return _HEAD % (len(body), body)


def _signed_otherwise(request: bytes, signature: str) -> bytes:
    body = request.partition(b"\r\n\r\n")[2]
    head, mark, _ = body.partition(_SIGNATURE)
    return _request(head + mark + signature.encode() + b'"}')


def _any_signature(chance: random.Random) -> str:
    """Well formed: r and a low s within the order. Half of them fit some key."""
    r, s = chance.randbytes(32), chance.randbytes(32)
    return b"".join((b"\x7f", r[1:], b"\x3f", s[1:], bytes((chance.randrange(2),)))).hex()


def requests(kind: str, count: int, chance: random.Random) -> list[bytes]:
    """So many distinct requests of one kind."""
    stranger = Key()
    good = [stranger.submit(spec("bench", "worker", serial)) for serial in range(count)]
    if kind == "stranger":
        return good
    if kind == "unsigned":
        return [_signed_otherwise(each, "") for each in good]
    if kind == "short":
        return [_signed_otherwise(each, chance.randbytes(64).hex()) for each in good]
    if kind == "random":
        return [_signed_otherwise(each, _any_signature(chance)) for each in good]
    if kind == "base64":
        return [each.replace(b'"payload":"e', b'"payload":"%') for each in good]
    return [_request(chance.randbytes(900)) for _ in range(count)]


class Stranger:
    """One connection: sends one request at a time."""

    __slots__ = ("is_kept", "socket")

    def __init__(self, port: int, *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self.socket = socket.socket()
        # Else the ports of ten thousand closed connections would be taken for a minute.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        try:
            self.socket.connect((ADDRESS, port))  # to loopback: it waits for nobody
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)


class Flood:
    """All strangers together, on one epoll: what they cost the machine is not the server's."""

    def __init__(self, port: int, face: str) -> None:
        chance = random.Random(7)
        kinds, self._new_share = FACES[face]
        made = [requests(kind, VARIANTS // len(kinds), chance) for kind in kinds]
        self._requests = cycle([each for group in zip(*made, strict=True) for each in group])
        self._chance = chance
        self._port = port
        self._epoll = select.epoll()
        self._waiting: dict[int, Stranger] = {}
        self._idle: list[Stranger] = []
        self._rate_s = 0.0
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Send what is due, tick by tick, until stdin ends."""
        orders = sys.stdin.fileno()
        os.set_blocking(orders, False)
        self._epoll.register(orders, select.EPOLLIN)
        due, then = 0.0, time.monotonic()
        while True:
            for number, _ in self._epoll.poll(TICK_S):
                if number != orders:
                    self._answered(self._waiting.pop(number))
                elif not self._obey(os.read(orders, 4096).decode()):
                    return
            now = time.monotonic()
            due, then = due + self._rate_s * (now - then), now
            while due >= 1:
                due -= 1
                self._send()

    def _obey(self, lines: str) -> bool:
        for line in lines.splitlines():
            word, _, rate = line.partition(" ")
            if word == "go":
                self.counts.clear()
                self._rate_s = float(rate)
            else:
                self._rate_s = 0.0
                print(json.dumps(self.counts), flush=True)
        return bool(lines)

    def _send(self) -> None:
        is_kept = self._chance.random() >= self._new_share
        if not (is_kept and self._idle) and len(self._waiting) >= MAX_OPEN:
            self.counts["held back"] += 1
            return
        try:
            stranger = (
                self._idle.pop()
                if is_kept and self._idle
                else Stranger(self._port, is_kept=is_kept)
            )
            stranger.socket.send(next(self._requests))
        except OSError:
            self.counts["no connection"] += 1
            return
        self.counts["sent"] += 1
        number = stranger.socket.fileno()
        self._waiting[number] = stranger
        self._epoll.register(number, select.EPOLLIN | select.EPOLLHUP)

    def _answered(self, stranger: Stranger) -> None:
        """Note the status; replies are small enough to come whole."""
        self._epoll.unregister(stranger.socket.fileno())
        try:
            reply = stranger.socket.recv(65_536)
        except OSError:
            reply = b""
        self.counts[reply[9:12].decode(errors="replace") or "closed"] += 1
        if reply and stranger.is_kept and b"Connection: close" not in reply:
            self._idle.append(stranger)
        else:
            stranger.socket.close()


def main() -> None:
    """Run from the command line."""
    flood = Flood(int(sys.argv[1]), sys.argv[2])
    print("ready", flush=True)
    flood.run()


if __name__ == "__main__":
    main()
