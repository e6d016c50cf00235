"""Judges what a connection brings, by what is known of whoever sends it.

As long as nothing speaks for a connection, each request and each order of a subscription has to
pass the gate. A member's lets so many more pass without.
"""

from __future__ import annotations

from typing import Final

from colonist_protocol.errors import ColonistError
from colonist_server.http.visitors import Visitor
from colonist_server.rpc.dispatch import Answer, Refusal, refused_order
from colonist_server.rpc.gate import Gate, Verdict
from colonist_server.rpc.table import PUBSUB

TRUST: Final = 256
"""Requests that a connection may make after a member's before one is judged again."""


class Porter:
    """The judge of all connections."""

    __slots__ = ("gate",)

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def judge(self, body: bytes, visitor: Visitor) -> Answer | None:
        """The refusal of a request; None: it is to be answered."""
        judged = self.gate.judge(body, visitor.address, is_proven=visitor.is_proven)
        if judged is Verdict.UNSIGNED:
            return None
        _note(visitor, is_proven=judged is Verdict.MEMBER)
        return None if isinstance(judged, Verdict) else judged

    def judge_order(self, body: bytes, visitor: Visitor) -> Refusal | None:
        """The refusal of a frame on `/pubsub`; None: it is to be opened."""
        if visitor.trust:
            visitor.trust -= 1
            return None
        try:
            verdict = self.gate.look(
                body, visitor.address, is_proven=visitor.is_proven, door=PUBSUB
            )
        except ColonistError as error:
            _note(visitor, is_proven=False)
            return refused_order(error)
        _note(visitor, is_proven=verdict is Verdict.MEMBER)
        return None


def _note(visitor: Visitor, *, is_proven: bool) -> None:
    visitor.is_proven = is_proven
    visitor.trust = TRUST if is_proven else 0
