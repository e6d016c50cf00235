"""Attempts by their tokens: shown to whom they were granted to, and read from their seals.

A token is computed from what the process's record says, so it can be shown again by any node, and
one that comes back proves that there was such a grant, also where a restore has forgotten it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_core import lease
from colonist_core.process import Cause, Grantee, Live
from colonist_protocol.errors import AccessError, AttemptInvalidError
from colonist_protocol.process import Attempt, Process, State
from colonist_protocol.seal import AttemptSeal
from colonist_protocol.tokens import ServerKeys, read_attempt
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.processes import is_assignee
from colonist_server.repo.records import all_ids
from colonist_server.repo.view import View
from colonist_server.store.interface import Guard

EARLY_S: Final = 1e-6
"""What counting in floats may lose."""


class Said(msgspec.Struct, frozen=True, gc=False):
    """A request about an attempt, by its executor: which attempt, and which of its requests."""

    by: Grantee
    seq: int
    cause: Cause
    payload: bytes
    colony: Colony
    executor: Executor

    @property
    def guard(self) -> Guard:
        """Holds as long as the executor is what it is: a node that is behind serves none other.

        Raises `AccessError` when it may not work any more.
        """
        executor = self.executor
        if self.colony.members.get(self.cause.who) is not executor or not executor.is_approved:
            raise AccessError("Access denied, the executor may not work any more")
        return Guard(executor.key, executor.revision)


class Attempts:
    """Tokens of attempts."""

    __slots__ = ("_clock", "_server_keys", "_view")

    def __init__(self, view: View, server_keys: ServerKeys, clock: Clock) -> None:
        self._view = view
        self._server_keys = server_keys
        self._clock = clock

    def of(self, process_id: str, live: Live) -> Attempt:
        """A running attempt that was granted to a sealed request."""
        key = self._server_keys.current
        token = key.attempt_token(process_id, live.executor, live.attempt, live.nonce.hex())
        end = live.lease_end_ns
        left = self._left_s(process_id, live, end) if end else msgspec.UNSET
        return Attempt(number=live.attempt, token=token, lease=left)

    def _left_s(self, process_id: str, live: Live, end: int) -> float:
        """By the clock, and no more than is sure where that was set back."""
        left_s = lease.left_s(end, self._clock.now_ns())
        row = self._view.rows.get(bytes.fromhex(process_id))
        if row is None or not row.held_until:
            return left_s
        return lease.told_s(left_s, row.held_until - self._clock.monotonic() + EARLY_S, live.flags)

    def granted(self, shown: Process, live: Live) -> Process:
        """A process as it is shown to whom it was just granted."""
        if not live.nonce:
            return shown
        return msgspec.structs.replace(shown, attempt=self.of(shown.processid, live))

    def shown(
        self, shown: Process, colony: Colony, caller: Executor | User | None, *, number: int = 0
    ) -> Process:
        """A process as a sealed reply shows it: to its executor with its attempt.

        With `number` only if that is the attempt that runs.
        """
        if shown.state != State.RUNNING or not isinstance(caller, Executor):
            return shown
        row = self._view.rows.get(bytes.fromhex(shown.processid))
        if row is None or row.state != State.RUNNING:
            return shown
        live = row.live()
        if not is_assignee(live, caller.record.id, colony) or number not in (0, live.attempt):
            return shown
        return self.granted(shown, live)

    def named(self, process_id: str, seal: AttemptSeal, member: Executor) -> Grantee:
        """The attempt that a seal names, of this executor. Raises `AttemptInvalidError`."""
        token = read_attempt(seal.attempt)
        if token is not None:
            for id in all_ids(member.record):
                if self._server_keys.made_attempt(token, process_id, id):
                    return Grantee(token.number, bytes.fromhex(token.nonce), id)
        raise AttemptInvalidError("the token names no attempt of yours at this process")
