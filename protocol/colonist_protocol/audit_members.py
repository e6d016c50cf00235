"""Who was a member of a colony when: read from the changes in the colony's own chain.

Time is counted in checkpoints (`audit_checkpoints.Cover`), not by clocks. A change of members
counts only with the request behind it: by the colony's owner, by the member itself where it changed
its id, or by a device with the proof that it knew the code of one of the owner's claims. Former ids
of a member stay its own: what was signed before a change may arrive after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from colonist_protocol.audit import FORGOTTEN
from colonist_protocol.audit_checkpoints import Cover
from colonist_protocol.audit_reading import AuditError, Servers
from colonist_protocol.audit_requests import REMOVE_CLAIM, Content, Named
from colonist_protocol.claims import NAME_CHARS, is_proof
from colonist_protocol.evidence import EventLine

GRACE: Final = 1
"""A node may hear of a removal so many checkpoints late."""
FOUNDED: Final = "colony_added"
_NOBODY: Final = Named()


class _Span:
    """From which checkpoint to which."""

    __slots__ = ("end", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.end: int | None = None


class Members:
    """From and until which checkpoints each id was a member."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: dict[str, list[_Span]] = {}

    def enter(self, id: str, cover: Cover) -> None:
        """From now on it is a member."""
        self._spans.setdefault(id, []).append(_Span(cover.since))

    def leave(self, id: str, cover: Cover) -> None:
        """From now on, and not before, it is none."""
        for span in self._spans.get(id, ())[-1:]:
            span.end = cover.group

    def check(self, id: str, cover: Cover) -> None:
        """Raise `AuditError` unless the id was a member under this checkpoint."""
        for span in self._spans.get(id, ()):
            is_over = span.end is not None and cover.since > span.end + GRACE
            if span.start <= cover.group and not is_over:
                return
        raise AuditError(f"{id[:12]}... was no member of the colony then")


class _Claim:
    """What somebody may enrol by: a type, how many more may, and who did."""

    def __init__(self, type: str, count: int) -> None:
        self.type = type
        self.left = count
        self.ids: list[str] = []


class MemberWalk:
    """Goes through the chain of a colony, event by event."""

    def __init__(self, colony: str, servers: Servers) -> None:
        self._colony = colony
        self._servers = servers
        self.members: Members | None = None
        """None: the chain does not say who was a member, `unknown` says why."""
        self.unknown = "the colony's chain does not begin with its founding"
        self.forgotten: set[int] = set()
        """Up to which checkpoints history was forgotten, by the server's own word."""
        self._owner = ""
        self._named: dict[tuple[str, str], list[str]] = {}
        self._held: dict[tuple[str, str], list[str]] = {}
        self._claims: dict[str, _Claim] = {}
        self._leaving: list[str] = []
        self._emptying: set[str] = set()

    def take(self, event: EventLine, content: Content | None, cover: Cover) -> None:
        """The next event, its request, and what it is under.

        Raises `AuditError` when who changed the members could not.
        """
        if event.n == 0 and event.what == FOUNDED:
            self.members, self.unknown = Members(), ""
        if not event.who:
            self._by_server(event, cover)
        elif self.members is not None and event.what in CHANGES:
            if content is not None:
                self._change(self.members, event, content, cover)
                return
            self.members = None  # the request was too long to be kept
            self.unknown = f"event {event.n} of the colony's chain is there without its request"

    def _by_server(self, event: EventLine, cover: Cover) -> None:
        if event.what == FORGOTTEN:
            self.forgotten.add(event.attempt)
        if event.what == "executor_removed" and self.members is not None:
            self._let_go(self.members, cover)

    def _let_go(self, members: Members, cover: Cover) -> None:
        """One of those who came by claims that are gone with them; which, is not said."""
        for id in self._leaving:
            members.leave(id, cover)

    def _change(self, members: Members, event: EventLine, content: Content, cover: Cover) -> None:
        if event.what in _OWN:
            _OWN[event.what](self, members, event.who, content, cover)
            return
        if event.what == "executor_removed" and event.req in self._emptying:
            self._let_go(members, cover)  # by who was the owner when the claim went
            return
        if event.what != FOUNDED and event.who != self._owner:
            raise AuditError(f"{event.what!r} was not signed by the colony's owner")
        _OWNERS[event.what](self, members, content, cover)
        if event.what == "claim_removed":
            self._emptying.add(event.req)

    def found(self, members: Members, content: Content, cover: Cover) -> None:
        """The colony has an owner: when it is founded."""
        if self._owner:
            raise AuditError("the colony is founded a second time")
        self._crown(members, (content.colony or _NOBODY).colonyid, cover)

    def hand_over(self, members: Members, content: Content, cover: Cover) -> None:
        """The colony's owner has another id."""
        self._crown(members, content.colonyid, cover)

    def _crown(self, members: Members, id: str, cover: Cover) -> None:
        self._owner = id
        members.enter(id, cover)

    def add_executor(self, members: Members, content: Content, cover: Cover) -> None:
        """An executor of this name was added, or added anew with another id."""
        found = content.executor or _NOBODY
        self._add(members, ("executor", found.executorname), found.executorid, cover)

    def add_user(self, members: Members, content: Content, cover: Cover) -> None:
        """A user was added."""
        found = content.user or _NOBODY
        self._add(members, ("user", found.name), found.userid, cover)

    def _add(self, members: Members, name: tuple[str, str], id: str, cover: Cover) -> None:
        self._remove(members, name, cover)
        self._named[name] = self._held[name[0], id] = [id]
        members.enter(id, cover)

    def remove_executor(self, members: Members, content: Content, cover: Cover) -> None:
        """An executor was removed."""
        if content.msgtype == REMOVE_CLAIM:
            raise AuditError("an executor went with a claim that was not removed by that request")
        self._remove(members, ("executor", content.executorname), cover)

    def remove_user(self, members: Members, content: Content, cover: Cover) -> None:
        """A user was removed."""
        self._remove(members, ("user", content.name), cover)

    def _remove(self, members: Members, name: tuple[str, str], cover: Cover) -> None:
        ids = self._named.get(name, ())
        for id in ids:
            members.leave(id, cover)
        if ids:
            self._held.pop((name[0], ids[-1]), None)
            self._named[name] = []  # nobody who enrols is given it again

    def rename_executor(self, members: Members, who: str, content: Content, cover: Cover) -> None:
        """An executor gave itself another id."""
        self._rename(members, "executor", who, content.executorid, cover)

    def rename_user(self, members: Members, who: str, content: Content, cover: Cover) -> None:
        """A user gave itself another id."""
        self._rename(members, "user", who, content.userid, cover)

    def _rename(self, members: Members, kind: str, who: str, id: str, cover: Cover) -> None:
        ids = self._held.pop((kind, who), None)
        if ids is None:
            raise AuditError(f"{who[:12]}..., who changed its id, was no {kind} of the colony then")
        ids.append(id)
        self._held[kind, id] = ids
        members.enter(id, cover)

    def add_claim(self, members: Members, content: Content, cover: Cover) -> None:
        """Somebody may enrol by a claim."""
        del members, cover
        self._claims[content.claim] = _Claim(content.executortype, content.count)

    def remove_claim(self, members: Members, content: Content, cover: Cover) -> None:
        """Nobody may any more. Who came by it may go too, one by one."""
        del members, cover
        claim = self._claims.pop(content.claim, None)
        if claim is not None and content.executors:
            self._leaving += claim.ids

    def enrol(self, members: Members, who: str, content: Content, cover: Cover) -> None:
        """An executor came by a claim."""
        claim = self._claims.get(content.claim)
        if claim is None or claim.left <= 0:
            raise AuditError(
                f"{who[:12]}... enrolled by a claim that there was not, or not any more"
            )
        if content.executorid != who or not self._is_proven(content):
            raise AuditError(
                f"{who[:12]}... enrolled without the proof that it knew the claim's code"
            )
        claim.left -= 1
        claim.ids.append(who)
        names = [("executor", f"{claim.type}-{who[:chars]}") for chars in NAME_CHARS]
        name = next((name for name in names if name not in self._named), names[-1])
        self._add(members, name, who, cover)

    def _is_proven(self, content: Content) -> bool:
        return any(
            is_proof(
                content.proof,
                server=server,
                colony=self._colony,
                claim=content.claim,
                executor=content.executorid,
            )
            for server in self._servers.ids
        )


_Owners = Callable[[MemberWalk, Members, Content, Cover], None]
_Own = Callable[[MemberWalk, Members, str, Content, Cover], None]

_OWNERS: Final[dict[str, _Owners]] = {
    FOUNDED: MemberWalk.found,
    "colony_id_changed": MemberWalk.hand_over,
    "executor_added": MemberWalk.add_executor,
    "executor_reregistered": MemberWalk.add_executor,
    "executor_removed": MemberWalk.remove_executor,
    "user_added": MemberWalk.add_user,
    "user_removed": MemberWalk.remove_user,
    "claim_added": MemberWalk.add_claim,
    "claim_removed": MemberWalk.remove_claim,
}
_OWN: Final[dict[str, _Own]] = {
    "executor_id_changed": MemberWalk.rename_executor,
    "user_id_changed": MemberWalk.rename_user,
    "executor_enrolled": MemberWalk.enrol,
}
CHANGES: Final = frozenset((*_OWNERS, *_OWN))
"""Events that say who is a member, or how one becomes one."""
