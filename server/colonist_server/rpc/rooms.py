"""What handlers work with: the rooms of the server, and the call at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from colonist_core.process import Cause
from colonist_protocol.errors import AccessError, ExistsError
from colonist_protocol.names import check_id
from colonist_protocol.seal import AttemptSeal, RequestSeal
from colonist_protocol.server import ServerInfo, VersionReply
from colonist_protocol.tokens import ServerKeys
from colonist_server.repo.attempts import Attempts
from colonist_server.repo.audit import Audit
from colonist_server.repo.checkpoints import Checkpoints
from colonist_server.repo.claims import Claims
from colonist_server.repo.clock import Clock
from colonist_server.repo.colonies import Colonies
from colonist_server.repo.cron_runs import CronRuns
from colonist_server.repo.crons import Crons
from colonist_server.repo.epochs import Epochs
from colonist_server.repo.freshness import Freshness
from colonist_server.repo.functions import Functions
from colonist_server.repo.generators import Generators
from colonist_server.repo.handover import HandOver
from colonist_server.repo.identities import Identities
from colonist_server.repo.journal import Journal
from colonist_server.repo.listing import Listing
from colonist_server.repo.members import Members
from colonist_server.repo.nodes import Nodes
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.owner import Owner
from colonist_server.repo.plain import check_plain
from colonist_server.repo.processes import Processes
from colonist_server.repo.removal import Removal
from colonist_server.repo.reports import Reports
from colonist_server.repo.results import Results
from colonist_server.repo.settling import Settling
from colonist_server.repo.standing import Standing
from colonist_server.repo.subscriptions import Subscriptions
from colonist_server.repo.trail import Receipt, Trail, Warrant
from colonist_server.repo.view import View
from colonist_server.repo.workflow_listing import WorkflowListing
from colonist_server.repo.workflow_removal import WorkflowRemoval
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Writes


class About(msgspec.Struct, frozen=True):
    """What the server says of itself."""

    node: str
    host: str
    port: int
    version: VersionReply
    info: ServerInfo
    refuses_plain: bool = False
    """Whether the server owner's requests must be sealed."""


class Rooms(NamedTuple):
    """Everything a handler may use.

    `fault` tells why this node cannot be relied on, "" when it can, `note` what else is to be known
    of it, `behind_s` how far its view is behind the store; `leader` which node leads.
    """

    view: View
    nodes: Nodes
    fault: Callable[[], str]
    note: Callable[[], str]
    behind_s: Callable[[], float]
    leader: Callable[[], str]
    colonies: Colonies
    members: Members
    claims: Claims
    functions: Functions
    processes: Processes
    attempts: Attempts
    results: Results
    reports: Reports
    removal: Removal
    listing: Listing
    journal: Journal
    workflows: Workflows
    generators: Generators
    crons: Crons
    cron_runs: CronRuns
    workflow_listing: WorkflowListing
    workflow_removal: WorkflowRemoval
    settling: Settling
    hand_over: HandOver
    standing: Standing
    subscriptions: Subscriptions
    freshness: Freshness
    epochs: Epochs
    server_keys: ServerKeys
    writes: Writes
    clock: Clock
    owner: Owner
    identities: Identities
    trail: Trail
    checkpoints: Checkpoints
    audit: Audit
    about: About

    def check_new_id(self, id: str, what: str) -> None:
        """Raise `InvalidValueError` for what is no id, `ExistsError` for one of the server's own.

        What those sign is the server's word: whoever had one could sign nothing else.
        """
        check_id(id, what)
        if id in self.server_keys.ids:
            raise ExistsError(f"the {what} is the server's own: take a key of its own for it")


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request that passed its access check.

    `scope` is the colony that the message is about and `caller` the member of it that signed; both
    are None where the access rule asks for neither.
    """

    cause: Cause
    payload: bytes
    scope: Colony | None = None
    caller: Executor | User | None = None
    seal: RequestSeal | None = None

    def about(self, colony: Colony, member: Executor | User) -> Call:
        """The same call, when its object was found: by an id that does not tell of its colony.

        Raises `PlainRefusedError`.
        """
        if self.seal is None:
            check_plain(colony, member)
        return msgspec.structs.replace(self, scope=colony, caller=member)

    @property
    def attempt(self) -> AttemptSeal | None:
        """The seal, where it names an attempt."""
        return self.seal if isinstance(self.seal, AttemptSeal) else None

    @property
    def warrant(self) -> Warrant:
        """The request as it is kept with what it changes."""
        return Warrant(self.cause, self.payload, Receipt())

    @property
    def colony(self) -> Colony:
        """The colony, where the access rule made sure that there is one."""
        if self.scope is None:
            raise AccessError("Access denied, not a member of any such colony")
        return self.scope

    @property
    def member(self) -> Executor | User:
        """The caller, where the access rule made sure of a member."""
        if self.caller is None:
            raise AccessError("Access denied, not a member of the colony")
        return self.caller

    @property
    def user(self) -> User:
        """The caller, where only a user will do."""
        if not isinstance(self.caller, User):
            raise AccessError("Access denied, user not found")
        return self.caller

    @property
    def executor(self) -> Executor:
        """The caller, where only an executor will do."""
        if not isinstance(self.caller, Executor):
            raise AccessError("Access denied, executor not found")
        return self.caller


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a handler answers: a value to encode; `lost` is called if it cannot be delivered.

    `event` is the hash of the event that the request caused, for the seal of the reply.
    """

    value: object
    payloadtype: str = ""
    lost: Callable[[], None] | None = None
    event: bytes = b""


NOTHING = Reply({})
