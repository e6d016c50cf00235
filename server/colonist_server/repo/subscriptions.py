"""The hub: brings changes of processes to those who follow them, in the order of the watch.

The watch feeds it (own commits too), so whoever follows sees what every node would see. A change is
rendered once, after it happened, as it was then; all who follow it get the same bytes. One task
renders and hands out, in order; a sink takes what it is given at once or drops its subscriber, so
nobody waits for anybody. While nobody follows anything an event costs one look at an empty map.

Nothing is missed and nothing comes twice: a subscription knows the revision that it has seen, and
the watch brings all later ones. When the watch itself was lost, followed processes are shown as
they are now, and who follows a whole colony is told that there is a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from colonist_protocol.errors import AccessError, BusyError, PlainRefusedError, UnavailableError
from colonist_protocol.process import State
from colonist_protocol.subscription import MAX_TIMEOUT_S
from colonist_server.repo import keys, moments
from colonist_server.repo.backlog import End, LookUp, Show
from colonist_server.repo.clock import Clock
from colonist_server.repo.delivery import NOW, Delivery
from colonist_server.repo.listing import Listing
from colonist_server.repo.moments import Moment
from colonist_server.repo.nouns import Colony, Executor, Row, Workflow
from colonist_server.repo.plain import MUST_BE_SEALED, refuses_plain
from colonist_server.repo.records import decode_live
from colonist_server.repo.topics import Ending, Follower, Order, Sink, Subscription, Topic
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Event, Revision

MAX_OF_CALLER: Final = 4096
MAX_SEALED_OF_CALLER: Final = 64
"""Each event is signed for each of them."""

_KIND: Final = slice(0, 2)
_TAG: Final = slice(2, 2 + keys.TAG_BYTES)
_MEMBERSHIP: Final = frozenset({keys.EXECUTOR, keys.USER, keys.COLONY})
_WATCHED: Final = _MEMBERSHIP | {keys.LIVE, keys.CLOSED}


class Subscriptions:
    """Who follows what, and what is on its way to them."""

    __slots__ = (
        "_at_close",
        "_clock",
        "_closing",
        "_counts",
        "_delivery",
        "_sealed",
        "_topics",
        "_writes",
    )

    def __init__(self, writes: Writes, listing: Listing, clock: Clock) -> None:
        self._writes = writes
        self._clock = clock
        self._delivery = Delivery(writes, listing, clock, self._drop)
        self._topics: dict[bytes, Topic] = {}
        self._counts: dict[str, int] = {}
        self._sealed: dict[str, int] = {}
        self._closing = False
        self._at_close: list[Callable[[], None]] = []

    async def run(self) -> None:
        """Hand out what happened until cancelled."""
        await self._delivery.run()

    # -- following

    async def open(self, order: Order, sink: Sink) -> Subscription:
        """Follow from now on. A process that is in the state already is shown at once.

        Raises `NotFoundError`, `BusyError`, `UnavailableError`, `AccessError`,
        `PlainRefusedError`.
        """
        self.check_room(order)
        check_follower(order.colony, order.follower)  # a sealed order was written down meanwhile
        subscription = Subscription(order, sink, self._writes.store.revision)
        row = self._writes.view.rows.get(order.pid) if order.pid is not None else None
        if row is not None:
            subscription.seen = row.revision
            self._enter(subscription)
            if subscription.wants(row.state) and (order.state != State.WAITING or _may_run(row)):
                self._delivery.put(Show(moments.of_row(row), NOW, (subscription,)))
        elif order.pid is not None:
            ended = await self._delivery.ended(order.colony, order.pid)
            self._delivery.show_end(subscription, ended)
        else:
            self._enter(subscription)
        return subscription

    def check_room(self, order: Order) -> None:
        """Raise `BusyError` for one more than a caller may have, `UnavailableError` at the end."""
        if self._closing:
            raise UnavailableError("the server stops")
        if self._counts.get(order.who, 0) >= MAX_OF_CALLER:
            raise BusyError(f"more than {MAX_OF_CALLER} subscriptions of one caller")
        if order.is_sealed and self._sealed.get(order.who, 0) >= MAX_SEALED_OF_CALLER:
            raise BusyError(f"more than {MAX_SEALED_OF_CALLER} sealed subscriptions of one caller")

    def cancel(self, subscription: Subscription) -> None:
        """Nobody is there any more. Idempotent."""
        subscription.is_over = True
        self._leave(subscription)

    async def changed(self, colony: Colony, pid: bytes, follower: Follower) -> None:
        """Return when something happens to a process, or a caller may not see it any more.

        May return early.
        """
        if self._closing or colony.is_gone:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        topic = self._topic(colony)
        topic.park(pid, waiter, follower)
        try:
            await waiter
        finally:
            topic.unpark(pid, waiter)
            self._forget(topic)

    @property
    def is_closing(self) -> bool:
        """Whether whoever waits is to be answered at once."""
        return self._closing

    @property
    def count(self) -> int:
        """How many subscriptions there are."""
        return sum(self._counts.values())

    @property
    def parked(self) -> int:
        """How many wait in `changed`."""
        return sum(topic.parked for topic in self._topics.values())

    # -- what the watch brings

    def watched(self, event: Event) -> None:
        """Take note of one revision, after the view did."""
        topics = self._topics
        if not topics:
            return
        for key, value in event.changes:
            kind = key[_KIND]
            if kind in _WATCHED and (topic := topics.get(key[_TAG])) is not None:
                self._apply(topic, kind, key, value, event)

    def workflow_changed(self, workflow: Workflow) -> None:
        """Nobody subscribes to workflows, only to their members."""

    def member_released(self, row: Row) -> None:
        """A member of a workflow has become free to run."""
        topic = self._topics.get(row.colony.tag)
        if topic is None:
            return
        topic.wake(row.pid)
        live = row.live()
        followers = [each for each in topic.followers(row.pid) if each.wants(live.state)]
        self._show(topic, moments.of_row(row), NOW, followers)

    def reloaded(self) -> None:
        """The watch was lost and the view loaded anew: nobody knows what was between."""
        for topic in list(self._topics.values()):
            topic.wake_all()
            self._check_members(topic)
            self._end_streams(topic)
            for pid in topic.followed():
                self._catch_up(pid, topic.followers(pid))

    def at_close(self, call: Callable[[], None]) -> None:
        """Call back when the server stops."""
        self._at_close.append(call)

    def close(self) -> None:
        """End everything: the server stops."""
        self._closing = True
        for call in self._at_close:
            call()
        for topic in list(self._topics.values()):
            topic.wake_all()
            for subscription in topic.everyone():
                self._drop(subscription, Ending.CLOSING)

    def _apply(
        self, topic: Topic, kind: bytes, key: bytes, value: bytes | None, event: Event
    ) -> None:
        pid = key[2:]
        if kind in _MEMBERSHIP:
            self._check_members(topic)
        elif kind == keys.CLOSED:
            if value is not None:
                self._ended_now(topic, event.revision, pid, value)
        elif value is not None:
            topic.wake(pid)
            if topic.cares(pid):
                self._lives(topic, pid, value, event)
        elif not _is_put(event, keys.closed(pid)):
            topic.wake(pid)
            for subscription in topic.followers(pid):
                self._leave(subscription)
                self._delivery.put(End(subscription, Ending.REMOVED))

    def _lives(self, topic: Topic, pid: bytes, value: bytes, event: Event) -> None:
        live = decode_live(value)
        if live.has_more and _is_noted(event, pid):
            return
        row = self._writes.view.rows.get(pid)
        unaware = [each for each in topic.followers(pid) if each.seen < event.revision]
        for each in moments.entered(pid, live, is_born=_is_put(event, keys.birth(pid))):
            moment = moments.of_live(topic.colony, pid, each, row)
            followers = [one for one in unaware if one.wants(each.state)]
            self._show(topic, moment, event.revision, followers, len(value))
        for subscription in unaware:
            subscription.seen = event.revision

    def _ended_now(self, topic: Topic, revision: Revision, pid: bytes, value: bytes) -> None:
        topic.wake(pid)
        if not topic.cares(pid):
            return
        followers = topic.followers(pid)
        moment = moments.of_closed(topic.colony, pid, value)
        self._show(topic, moment, revision, followers, len(value))
        for subscription in followers:
            self._leave(subscription)
            self._delivery.put(End(subscription, Ending.DONE))

    def _catch_up(self, pid: bytes, followers: Sequence[Subscription]) -> None:
        """Show a process to who has not seen it as it is now, whatever state was asked for."""
        row = self._writes.view.rows.get(pid)
        if row is None:
            for subscription in followers:
                self._leave(subscription)
                self._delivery.put(LookUp(subscription))
            return
        unaware = [each for each in followers if each.seen < row.revision]
        if unaware:
            self._delivery.put(Show(moments.of_row(row), NOW, unaware))
        for subscription in unaware:
            subscription.seen = row.revision

    def _check_members(self, topic: Topic) -> None:
        """Whoever may not follow any more sees nothing more, from now on."""
        topic.wake_all(but=partial(_may_go_on, topic.colony))
        for follower, subscriptions in topic.callers():
            ending = _refusal(topic.colony, follower)
            if ending is not None:
                for subscription in subscriptions:
                    self._drop(subscription, ending)

    # -- the books

    def _show(
        self,
        topic: Topic,
        moment: Moment,
        revision: Revision,
        followers: Sequence[Subscription],
        size: int = 0,
    ) -> None:
        crowds = topic.audience(moment.live)
        if not crowds and not followers:
            return
        self._delivery.put(Show(moment, revision, followers, crowds, size))
        if crowds and self._delivery.backlog.is_full:
            longest = self._topics.get(self._delivery.backlog.cut())
            if longest is not None:
                self._end_streams(longest)

    def _end_streams(self, topic: Topic) -> None:
        for subscription in topic.streams():
            self._leave(subscription)
            self._delivery.put(End(subscription, Ending.BEHIND))

    def _enter(self, subscription: Subscription) -> None:
        order = subscription.order
        subscription.is_there = True
        self._topic(order.colony).add(subscription)
        for counts in self._counted(order):
            counts[order.who] = counts.get(order.who, 0) + 1
        until = self._clock.monotonic() + min(max(order.timeout_s, 0.0), MAX_TIMEOUT_S)
        subscription.timer = self._clock.call_at(until, partial(self._time_is_up, subscription))

    def _leave(self, subscription: Subscription) -> None:
        """Take it out of the books; what is on its way still comes."""
        if not subscription.is_there:
            return
        order = subscription.order
        subscription.is_there = False
        if subscription.timer is not None:
            subscription.timer.cancel()
        topic = self._topic(order.colony)
        topic.discard(subscription)
        self._forget(topic)
        for counts in self._counted(order):
            counts[order.who] -= 1
            if not counts[order.who]:
                del counts[order.who]

    def _counted(self, order: Order) -> list[dict[str, int]]:
        return [self._counts, self._sealed] if order.is_sealed else [self._counts]

    def _time_is_up(self, subscription: Subscription) -> None:
        self._leave(subscription)
        self._delivery.put(End(subscription, Ending.TIME_IS_UP))

    def _drop(self, subscription: Subscription, ending: Ending) -> None:
        """End it at once; what is on its way does not come."""
        self._leave(subscription)
        if not subscription.is_over:
            subscription.is_over = True
            subscription.sink.over(subscription, ending)

    def _topic(self, colony: Colony) -> Topic:
        topic = self._topics.get(colony.tag)
        if topic is None:
            topic = self._topics[colony.tag] = Topic(colony)
        return topic

    def _forget(self, topic: Topic) -> None:
        if topic.is_empty:
            self._topics.pop(topic.colony.tag, None)


def check_follower(colony: Colony, follower: Follower) -> None:
    """Raise `AccessError` for whoever is no member any more, or `PlainRefusedError`."""
    ending = _refusal(colony, follower)
    if ending is Ending.REFUSED:
        raise AccessError("Access denied, not a member of the colony any more")
    if ending is Ending.PLAIN_REFUSED:
        raise PlainRefusedError(MUST_BE_SEALED)


def _may_go_on(colony: Colony, follower: Follower) -> bool:
    return _refusal(colony, follower) is None


def _refusal(colony: Colony, follower: Follower) -> Ending | None:
    """Why somebody may not follow a colony: no approved executor and no user; a plain request."""
    member = colony.members.get(follower.who)
    is_member = member.is_approved if isinstance(member, Executor) else member is not None
    if not is_member or colony.is_gone:
        return Ending.REFUSED
    if not follower.is_sealed and refuses_plain(colony, member):
        return Ending.PLAIN_REFUSED
    return None


def _may_run(row: Row) -> bool:
    """Whether something that waits waits for an executor, neither for parents nor for its end."""
    if row.workflow is None:
        return True
    graph = row.workflow.graph
    is_doomed = graph.state_of(row.number) != State.WAITING
    return not is_doomed and not graph.waits_for_parents(row.number)


def _is_put(event: Event, key: bytes) -> bool:
    return any(each == key and value is not None for each, value in event.changes)


def _is_noted(event: Event, pid: bytes) -> bool:
    """Whether the live record was written only to say what stands beside it (`chain.noted`)."""
    beside = (keys.attributes(pid), keys.output(pid))
    return any(each.startswith(beside) and value is not None for each, value in event.changes)
