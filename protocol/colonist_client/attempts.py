"""Which attempts a client holds: the token of each grant, and the numbers used in it.

Filled from checked replies, so that whoever was given a process can close it and write to it.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Final

import msgspec

from colonist_client.sealer import Seqs
from colonist_protocol.attribute import AddAttribute
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.message import Message
from colonist_protocol.process import Process

MAX_KEPT: Final = 4096

_FOUND_AGAIN: Final = 31
"""Bits of the first number in an attempt that this program did not begin: who did used low ones."""


class Attempts:
    """The newest attempts by process; the oldest are forgotten first."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Seqs] = OrderedDict()

    def begin(self, process: Process) -> Seqs | None:
        """A process was granted to us: its attempt; None where the server shows none."""
        return self._learn(process, 0)

    def find(self, process: Process) -> Seqs | None:
        """A process of ours was looked up: its attempt, begun by this program or another one."""
        return self._learn(process, (1 << _FOUND_AGAIN) + secrets.randbits(_FOUND_AGAIN - 1))

    def of(self, message: Message) -> Seqs:
        """The attempt that a message is about. Raises `InvalidValueError` for an unknown one."""
        process_id = _process_of(message)
        seqs = self._kept.get(process_id)
        if seqs is None:
            raise InvalidValueError(
                f"{message.msgtype()} is sealed with the token of an attempt, and this client was "
                f"not given {process_id[:64]}"
            )
        return seqs

    def forget(self, process_id: str) -> None:
        """The attempt is over."""
        self._kept.pop(process_id, None)

    def _learn(self, process: Process, first: int) -> Seqs | None:
        attempt = process.attempt
        if attempt is msgspec.UNSET:
            return None
        seqs = self._kept.get(process.processid)
        if seqs is None or seqs.token != attempt.token:
            seqs = Seqs(attempt.token, first)
            self._kept[process.processid] = seqs
        self._kept.move_to_end(process.processid)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return seqs


def _process_of(message: Message) -> str:
    if isinstance(message, AddAttribute):
        return message.attribute.targetid
    found: str = getattr(message, "processid", "")
    return found
