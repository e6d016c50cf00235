"""The verifier of audit files knows every event that a server writes."""

from __future__ import annotations

from colonist_core.process import What
from colonist_protocol.audit import REMOVED
from colonist_protocol.audit_members import CHANGES
from colonist_protocol.audit_requests import BY_SERVER, CAUSED, CAUSES, OF_MANY, UNSIGNED
from colonist_protocol.messages import TYPED
from colonist_server.repo.trail import Changed


def test_every_event_has_a_cause_or_is_the_servers_own() -> None:
    words = {what.name.lower() for what in What} | {str(word) for word in Changed} | {REMOVED}
    assert words == CAUSED | BY_SERVER
    assert not CAUSED & BY_SERVER
    assert words >= CHANGES | UNSIGNED


def test_every_cause_is_a_message() -> None:
    assert TYPED.keys() >= CAUSES.keys()
    assert CAUSES.keys() >= OF_MANY
