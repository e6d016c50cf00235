"""The writer in a process of its own, so that it shares no interpreter lock with the loop.

On a thread, planning and answering a batch stops the event loop, and the loop's turns hold up the
batch: with 64 clients on two cores a third of the loop's time went that way. Here a commit costs
the loop its encoding, and batches are planned and written on the other core.

The two processes live and die together: the child ends when its end of the socket does (what it
had not answered is then durable or absent, whole), the parent when the child dies unasked.

    python -m colonist_server.store.writer_process PATH SOCKET_FD     (started by the store only)
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from colonist_client import memory
from colonist_server.store import file
from colonist_server.store.batch import Answers
from colonist_server.store.copier import Copier
from colonist_server.store.frames import (
    Parcel,
    pack_parcels,
    pack_report,
    parcel,
    unpack_report,
    unpack_works,
)
from colonist_server.store.framing import Frames
from colonist_server.store.interface import StoreError
from colonist_server.store.writer import Outcome, Work, Writer

log = logging.getLogger(__name__)

MODULE: Final = "colonist_server.store.writer_process"
FATAL_EXIT: Final = 70
RECEIVED_BYTES: Final = 1_048_576
COLLECT_AT: Final = (50_000, 20, 50)
FRAMES_AHEAD: Final = 2
"""One is being written, one waits; what comes then goes with the next, in one frame."""


class WriterProcess(asyncio.Protocol):
    """The parent's end. `deliver` and `on_fatal` are called on the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        deliver: Callable[[Outcome], None],
        on_fatal: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._on_fatal = on_fatal
        self._frames = Frames()
        self._works: dict[int, Work] = {}
        self._outbox: list[Parcel | None] = []
        self._number = 0
        self._sent = 0
        self._taken = 0
        self._is_due = False
        self._has_ended = False

    async def start(self, path: Path, lock: int) -> None:
        """Start the child on a file that is open and locked. Raises `StoreError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = await asyncio.to_thread(_spawn, path, theirs.fileno(), lock)
        ready = await self._loop.sock_recv(_unblocked(ours), 1)
        if not ready:
            ours.close()
            self._child.wait()
            raise StoreError(f"{path}: the store's writer could not start")
        transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)
        self._transport = transport

    def put(self, work: Work) -> None:
        """Send a work at the end of this turn of the loop, with all others of it."""
        self._number += 1
        self._works[self._number] = work
        self._send(parcel(self._number, work))

    def stop(self) -> None:
        """Finish what was put so far, then end; the last outcome says that it has."""
        self._send(None)

    def join(self) -> None:
        """Wait until the child has ended."""
        self._child.wait()

    def _send(self, work: Parcel | None) -> None:
        self._outbox.append(work)
        if not self._is_due and self._sent - self._taken < FRAMES_AHEAD:
            self._is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_due = False
        if not self._has_ended:
            self._transport.write(pack_parcels(self._outbox))
            self._sent += 1
        self._outbox.clear()

    def data_received(self, data: bytes) -> None:
        """Outcomes, in order."""
        for frame in self._frames.feed(data):
            self._taken, outcome = unpack_report(frame, self._works)
            if outcome.last:
                self._end(outcome)
            else:
                self._deliver(outcome)
        if self._outbox and not self._is_due:
            self._flush()

    def _end(self, outcome: Outcome) -> None:
        self._has_ended = True
        late: Answers = [(work.ticket, None) for work in self._works.values()]
        self._works.clear()
        self._transport.close()
        self._deliver(outcome._replace(answers=outcome.answers + late))

    def connection_lost(self, exc: Exception | None) -> None:
        """The child died: nobody knows what is on file."""
        del exc
        if not self._has_ended:
            log.critical("the store's writer died: nobody knows what is on file, ending")
            self._on_fatal()
            self._end(Outcome(0, [], [], fault="the store's writer died", last=True))


def _spawn(path: Path, end: int, lock: int) -> subprocess.Popen[bytes]:
    # The child keeps the lock until it has ended, also when the parent is killed.
    return subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours
        [sys.executable, "-m", MODULE, str(path), str(end)],
        pass_fds=(end, lock),
        env=memory.for_ours(os.environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _unblocked(end: socket.socket) -> socket.socket:
    end.setblocking(False)
    return end


class SocketInbox:
    """The child's end: where its writer takes work from."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._frames = Frames()
        self._has_ended = False
        self.taken = 0

    def take(self, *, wait: bool) -> list[Work | None]:
        """All that has arrived; the parent's end counts as its wish to stop."""
        works: list[Work | None] = []
        while not self._has_ended:
            flags = 0 if wait and not works else socket.MSG_DONTWAIT
            try:
                data = self._end.recv(RECEIVED_BYTES, flags)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            self._has_ended = not data
            for frame in self._frames.feed(data):
                works.extend(unpack_works(frame))
                self.taken += 1
        return works or ([None] if wait else [])


class Child:
    """The writer, with the socket for inbox and outbox."""

    def __init__(self, path: Path, end: socket.socket) -> None:
        self._end = end
        connection = file.open_for_writing(path)
        self._revision = file.newest_revision(connection)
        copier = Copier(file.connect(path), on_fatal=_die)
        self._inbox = SocketInbox(end)
        self._writer = Writer(
            connection,
            self._revision,
            copier,
            self._inbox,
            deliver=self._report,
            on_fatal=_die,
        )

    def run(self) -> None:
        """Say that all is ready, then write until the end."""
        self._end.sendall(b"!")
        self._writer.run()

    def _report(self, outcome: Outcome) -> None:
        frame = pack_report(outcome, self._revision, self._inbox.taken)
        self._revision = outcome.revision
        try:
            self._end.sendall(frame)
        except ConnectionError:
            return  # the parent was killed: there is nobody to tell


def _die() -> None:
    os._exit(FATAL_EXIT)


def main() -> None:
    """Run the child."""
    memory.close(os.environ)
    # Whoever stops the parent stops the child by it, in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Works are freed by counting references; looking for cycles took 5 % of the time.
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)
    with socket.socket(fileno=int(sys.argv[2])) as end:
        Child(Path(sys.argv[1]), end).run()


if __name__ == "__main__":
    main()
