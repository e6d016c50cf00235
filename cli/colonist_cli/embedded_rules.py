"""Who may do what at the embedded broker; the same rules that `colonist bridge acl` writes.

Pure. An account is a user name that is also the only client id it may use.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from colonist_bridge.acl import Access


@dataclass(slots=True)
class Accounts:
    """The accounts of one broker; may grow while it runs."""

    _passwords: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    _access: dict[str, Access] = field(default_factory=dict[str, Access])

    def add(self, name: str, password: str, access: Access) -> None:
        """Add or replace an account."""
        self._passwords[name] = password
        self._access[name] = access

    def may_connect(self, client_id: str | None, name: str | None, password: str | None) -> bool:
        """Whether name and password fit and the client id is the name."""
        expected = self._passwords.get(name or "")
        if expected is None or client_id != name:
            return False
        return hmac.compare_digest(expected.encode(), (password or "").encode())

    def may_write(self, name: str | None, topic: str) -> bool:
        """Whether the account may publish to the topic."""
        access = self._access.get(name or "")
        return access is not None and any(covers(rule, topic) for rule in access.writes)

    def may_read(self, name: str | None, topic: str) -> bool:
        """Whether the account may subscribe to, or be sent, this topic or filter."""
        access = self._access.get(name or "")
        return access is not None and any(covers(rule, topic) for rule in access.reads)


def covers(rule: str, wanted: str) -> bool:
    """Whether every topic that `wanted` (a topic or a filter) matches is one of the rule's."""
    rules, levels = rule.split("/"), wanted.split("/")
    for place, allowed in enumerate(rules):
        if allowed == "#":
            return True
        if place >= len(levels) or levels[place] == "#":
            return False
        if allowed not in ("+", levels[place]):
            return False
    return len(rules) == len(levels)
