"""Who was a member of a colony when: read from the changes in the colony's own chain.

Time is counted in checkpoints (`audit_checkpoints.Groups`), not by clocks. A change of members
counts only with the request behind it, by the colony's owner, or by the member itself where it
changed its id. Former ids of a member stay its own: what was signed before a change may arrive
after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from colonist_protocol.audit import FORGOTTEN
from colonist_protocol.audit_reading import AuditError
from colonist_protocol.audit_requests import Content, Named
from colonist_protocol.evidence import EventLine

GRACE: Final = 1
"""A node may hear of a removal so many checkpoints late."""
FOUNDED: Final = "colony_added"
CHANGES: Final = frozenset(
    {
        FOUNDED,
        "colony_id_changed",
        "executor_added",
        "executor_reregistered",
        "executor_removed",
        "executor_id_changed",
        "user_added",
        "user_removed",
        "user_id_changed",
    }
)
"""Events that say who is a member."""

_NOBODY: Final = Named()


class Members:
    """From and until which checkpoints each id was a member."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: dict[str, list[list[int | None]]] = {}

    def enter(self, id: str, group: int) -> None:
        """From now on it is a member."""
        self._spans.setdefault(id, []).append([group, None])

    def leave(self, id: str, group: int) -> None:
        """From now on it is none."""
        for span in self._spans.get(id, ()):
            if span[1] is None:
                span[1] = group

    def check(self, id: str, group: int) -> None:
        """Raise `AuditError` unless the id was a member under this checkpoint."""
        for start, end in self._spans.get(id, ()):
            if start is not None and start <= group and (end is None or group <= end + GRACE):
                return
        raise AuditError(f"{id[:12]}... was no member of the colony then")


class MemberWalk:
    """Goes through the chain of a colony, event by event."""

    def __init__(self) -> None:
        self.members: Members | None = None
        """None: the chain does not say who was a member, `unknown` says why."""
        self.unknown = "the colony's chain does not begin with its founding"
        self.forgotten: set[int] = set()
        """Up to which checkpoints history was forgotten, by the server's own word."""
        self._owner = ""
        self._named: dict[tuple[str, str], list[str]] = {}

    def take(self, event: EventLine, content: Content | None, group: int) -> None:
        """The next event, its request, and the checkpoint that it is under.

        Raises `AuditError` when who changed the members could not.
        """
        if event.what == FORGOTTEN and not event.who:
            self.forgotten.add(event.attempt)
        if event.n == 0 and event.what == FOUNDED:
            self.members, self.unknown = Members(), ""
        if self.members is None or not event.who or event.what not in CHANGES:
            return
        if content is None:  # too long to be kept
            self.members = None
            self.unknown = f"event {event.n} of the colony's chain is there without its request"
            return
        if event.what in _OWN:
            _OWN[event.what](self, self.members, event.who, content, group)
            return
        if event.what != FOUNDED and event.who != self._owner:
            raise AuditError(f"{event.what!r} was not signed by the colony's owner")
        _OWNERS[event.what](self, self.members, content, group)

    def found(self, members: Members, content: Content, group: int) -> None:
        """The colony has an owner: when it is founded."""
        if self._owner:
            raise AuditError("the colony is founded a second time")
        self._crown(members, (content.colony or _NOBODY).colonyid, group)

    def hand_over(self, members: Members, content: Content, group: int) -> None:
        """The colony's owner has another id."""
        self._crown(members, content.colonyid, group)

    def _crown(self, members: Members, id: str, group: int) -> None:
        self._owner = id
        members.enter(id, group)

    def add_executor(self, members: Members, content: Content, group: int) -> None:
        """An executor of this name was added, or added anew with another id."""
        found = content.executor or _NOBODY
        self._add(members, ("executor", found.executorname), found.executorid, group)

    def add_user(self, members: Members, content: Content, group: int) -> None:
        """A user was added."""
        found = content.user or _NOBODY
        self._add(members, ("user", found.name), found.userid, group)

    def _add(self, members: Members, name: tuple[str, str], id: str, group: int) -> None:
        self._remove(members, name, group)
        self._named[name] = [id]
        members.enter(id, group)

    def remove_executor(self, members: Members, content: Content, group: int) -> None:
        """An executor was removed."""
        self._remove(members, ("executor", content.executorname), group)

    def remove_user(self, members: Members, content: Content, group: int) -> None:
        """A user was removed."""
        self._remove(members, ("user", content.name), group)

    def _remove(self, members: Members, name: tuple[str, str], group: int) -> None:
        for id in self._named.pop(name, ()):
            members.leave(id, group)

    def rename_executor(self, members: Members, who: str, content: Content, group: int) -> None:
        """An executor gave itself another id."""
        self._rename(members, "executor", who, content.executorid, group)

    def rename_user(self, members: Members, who: str, content: Content, group: int) -> None:
        """A user gave itself another id."""
        self._rename(members, "user", who, content.userid, group)

    def _rename(self, members: Members, kind: str, who: str, id: str, group: int) -> None:
        for (kind_of, _), ids in self._named.items():
            if kind_of == kind and ids[-1] == who:
                ids.append(id)
                members.enter(id, group)
                return
        raise AuditError(f"{who[:12]}..., who changed its id, was no {kind} of the colony then")


_Owners = Callable[[MemberWalk, Members, Content, int], None]
_Own = Callable[[MemberWalk, Members, str, Content, int], None]

_OWNERS: Final[dict[str, _Owners]] = {
    FOUNDED: MemberWalk.found,
    "colony_id_changed": MemberWalk.hand_over,
    "executor_added": MemberWalk.add_executor,
    "executor_reregistered": MemberWalk.add_executor,
    "executor_removed": MemberWalk.remove_executor,
    "user_added": MemberWalk.add_user,
    "user_removed": MemberWalk.remove_user,
}
_OWN: Final[dict[str, _Own]] = {
    "executor_id_changed": MemberWalk.rename_executor,
    "user_id_changed": MemberWalk.rename_user,
}
