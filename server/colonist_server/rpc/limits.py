"""Holds callers to the limits: requests in a time, requests at once, sizes, what may wait.

Counted per identity that signed, whatever connection it came by: the devices behind one bridge are
many, the connections of one program are one. Only who was let in is counted, so strangers hold no
memory here; a request of which no colony is known is counted apart, among few.

What may fare better later is refused with `busy` and a time; what never can with `too_large`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from colonist_core.limits import Buckets, Limits, Rate
from colonist_protocol import attribute, generator, log, process, workflow
from colonist_protocol.errors import BusyError, TooLargeError
from colonist_protocol.message import Message
from colonist_protocol.times import SECOND_NS
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony
from colonist_server.rpc.rooms import Call

MAX_IDENTITIES: Final = 100_000
MAX_UNPLACED: Final = 4_096
"""Identities whose requests named no colony."""
CROWDED_S: Final = 1.0
FULL_S: Final = 5.0

SIZES: Final[dict[type[Message], str]] = {
    process.SubmitFunctionSpec: "spec_bytes",
    workflow.AddChild: "spec_bytes",
    workflow.SubmitWorkflowSpec: "workflow_bytes",
    generator.PackGenerator: "args_bytes",
    process.CloseSuccessful: "output_bytes",
    process.CloseFailed: "output_bytes",
    process.SetOutput: "output_bytes",
    attribute.AddAttribute: "attribute_bytes",
    log.AddLog: "log_bytes",
    log.AddExecutorLog: "log_bytes",
}
"""Which limit the JSON of a message is held to."""

_FIGURES: Final = {
    "rate": ("rate",),
    "requests": ("requests",),
    "polls": ("polls", "colony_polls"),
    "waiting": ("waiting",),
    "sizes": tuple(dict.fromkeys(SIZES.values())),
}


class Limiter:
    """What each caller does at this node, against what it may do."""

    __slots__ = (
        "_arguments",
        "_clock",
        "_identities",
        "_unplaced",
        "limits",
        "polls",
        "refused",
        "under_way",
    )

    def __init__(self, limits: Limits, clock: Clock, arguments: Callable[[bytes], int]) -> None:
        self.limits = limits
        self._clock = clock
        self._arguments = arguments
        """How many wait in the generators of the colony with that tag."""
        rate = Rate(per_s=limits.rate, burst=limits.burst)
        self._identities = Buckets(rate, MAX_IDENTITIES)
        self._unplaced = Buckets(rate, MAX_UNPLACED)
        self.under_way: dict[str | bytes, int] = {}
        """Requests by the identity that signed them."""
        self.polls: dict[str | bytes, int] = {}
        """Assigns by identity, and by the tag of their colony."""
        self.refused: Counter[str] = Counter()
        """By the name of the limit."""

    def figures(self) -> dict[str, float]:
        """What was refused, by the names of `http.metrics`."""
        return {
            f"colonist_limited_{name}_total": sum(self.refused[limit] for limit in limits)
            for name, limits in _FIGURES.items()
        }

    def pace(self, call: Call) -> None:
        """Count one more request. Raises `BusyError`."""
        buckets = self._unplaced if call.scope is None else self._identities
        lacks_ns = buckets.take(call.cause.who, int(self._clock.monotonic() * SECOND_NS))
        if lacks_ns:
            limit = self.limits.rate
            text = f"more than {limit} requests a second by one identity: slow down"
            raise self._busy("rate", text, lacks_ns / SECOND_NS)

    def check(self, kind: type[Message], call: Call, message: Message) -> None:
        """Raise `TooLargeError`, or `BusyError` where the colony holds no more that waits."""
        name = SIZES.get(kind)
        if name is None:
            return
        size, limit = len(call.payload), getattr(self.limits, name)
        if size > limit:
            self.refused[name] += 1
            raise TooLargeError(f"{kind.msgtype()} of {size} bytes is over the limit of {limit}")
        births = births_of(message)
        if births and call.scope is not None:
            self._check_room(call.scope, births)

    def _check_room(self, colony: Colony, births: int) -> None:
        limit = self.limits.waiting
        if births > limit:
            self.refused["waiting"] += 1
            raise TooLargeError(f"{births} processes are more than the {limit} that may wait")
        waiting = colony.waiting + self._arguments(colony.tag)
        if waiting + births > limit:
            text = f"{waiting} of at most {limit} processes and packed arguments wait already"
            raise self._busy("waiting", text, FULL_S)

    def enter(self, kind: type[Message], call: Call) -> None:
        """A request is about to be carried out; `leave` follows. Raises `BusyError`."""
        who, limits = call.cause.who, self.limits
        count = self.under_way.get(who, 0)
        if count >= limits.requests:
            text = f"{limits.requests} requests of one identity are under way already"
            raise self._busy("requests", text, CROWDED_S)
        if kind is process.AssignProcess and call.scope is not None:
            self._enter_poll(who, call.scope.tag)
        self.under_way[who] = count + 1

    def _enter_poll(self, who: str, tag: bytes) -> None:
        limits = self.limits
        mine, all_polls = self.polls.get(who, 0), self.polls.get(tag, 0)
        if mine >= limits.polls:
            text = f"{limits.polls} assigns of one executor wait already"
            raise self._busy("polls", text, FULL_S)
        if all_polls >= limits.colony_polls:
            text = f"{limits.colony_polls} assigns wait in the colony already"
            raise self._busy("colony_polls", text, FULL_S)
        self.polls[who] = mine + 1
        self.polls[tag] = all_polls + 1

    def leave(self, kind: type[Message], call: Call) -> None:
        """It has ended."""
        who = call.cause.who
        _less(self.under_way, who)
        if kind is process.AssignProcess and call.scope is not None:
            _less(self.polls, who)
            _less(self.polls, call.scope.tag)

    def _busy(self, name: str, text: str, retry_after_s: float) -> BusyError:
        self.refused[name] += 1
        return BusyError(text, retry_after_s=retry_after_s)


def births_of(message: Message) -> int:
    """How many processes a message makes at once."""
    if type(message) is process.SubmitFunctionSpec:
        return 1
    match message:
        case process.SubmitFunctionSpec() | workflow.AddChild() | generator.PackGenerator():
            return 1
        case workflow.SubmitWorkflowSpec():
            return len(message.spec.functionspecs)
        case _:
            return 0


def _less(counts: dict[str | bytes, int], key: str | bytes) -> None:
    count = counts[key] - 1
    if count:
        counts[key] = count
    else:
        del counts[key]
