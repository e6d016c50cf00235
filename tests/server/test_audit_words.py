"""The verifier of audit files knows every event that a server writes."""

from __future__ import annotations

from colonist_core.process import What
from colonist_protocol.audit import FORGOTTEN, REMOVED
from colonist_protocol.audit_members import CHANGES
from colonist_protocol.audit_requests import CAUSES, OF_MANY
from colonist_protocol.messages import TYPED
from colonist_server.repo.trail import Changed

BY_SERVER = {
    "requeued",
    "expired",
    "waited_out",
    "undelivered",
    "orphaned",
    "parent_failed",
    "unstarted",
    "never_started",
    FORGOTTEN,
}
"""What no request causes, because only the server says it."""


def test_every_event_has_a_cause_or_is_the_servers_own() -> None:
    words = {what.name.lower() for what in What} | {str(word) for word in Changed} | {REMOVED}
    caused = {word for words in CAUSES.values() for word in words}
    assert words == caused | BY_SERVER
    assert not caused & BY_SERVER
    assert words >= CHANGES


def test_every_cause_is_a_message() -> None:
    assert TYPED.keys() >= CAUSES.keys()
    assert CAUSES.keys() >= OF_MANY
