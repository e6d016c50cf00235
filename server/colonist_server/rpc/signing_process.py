"""The process beside a server's loop that signs its replies and works through signatures for it.

    python -m colonist_server.rpc.signing_process SOCKET_FD     (started by the server only)

What one turn of the loop has for it comes as one batch, and is answered by one. The key goes over
the socket, so it stands in no argument, environment or file of this process.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from colonist_client import memory
from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope, Unsigned
from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import KEY_BYTES, Identity
from colonist_server.store.framing import Frames, framed

MODULE: Final = "colonist_server.rpc.signing_process"
RECEIVED_BYTES: Final = 262_144
READY: Final = b"!"


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A sealed request, as far as its signature covers it, and that."""

    payload: str
    seal: str
    signature: str


class Work(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is to be done: requests to be verified, replies to be signed."""

    requests: Sequence[Request]
    replies: Sequence[Unsigned]


class Verified(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who signed a request, and the digest that was signed."""

    caller: str
    digest: bytes


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of a batch, in its order. None: nobody's signature; bodies of replies."""

    callers: Sequence[Verified | None]
    bodies: Sequence[bytes]


def pack(message: Work | Done) -> bytes:
    """A message as it goes over the socket."""
    return framed(_ENCODER.encode(message))


def carry_out(work: Work, identity: Identity) -> Done:
    """Do it."""
    return Done(
        [_verified(request) for request in work.requests],
        [reply.signed(identity) for reply in work.replies],
    )


def _verified(request: Request) -> Verified | None:
    sent = Envelope("", request.payload, request.signature, request.seal)
    try:
        signed = envelope.authenticate(sent)
    except ColonistError:
        return None  # the server finds out what is wrong with it
    return Verified(signed.caller, signed.digest)


def serve(end: socket.socket) -> None:
    """Work until the other end is closed."""
    identity = Identity(end.recv(KEY_BYTES, socket.MSG_WAITALL))
    end.sendall(READY)
    frames, decoder = Frames(), msgspec.msgpack.Decoder(Work)
    while data := end.recv(RECEIVED_BYTES):
        for batch in frames.feed(data):
            end.sendall(pack(carry_out(decoder.decode(batch), identity)))


def main() -> None:
    """Run the process. Whoever stops the server stops it by the closed socket."""
    memory.close(os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as end:
        try:
            serve(end)
        except ConnectionError:
            return  # the server was killed


_ENCODER: Final = msgspec.msgpack.Encoder()

if __name__ == "__main__":
    main()
