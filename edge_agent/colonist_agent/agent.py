"""The agent: asks for work when it has a free slot, runs it, brings the results back.

It keeps going through every failure of server and network, with full jitter between attempts, and
stops only when told to. `stop` is gentle: no more work is asked for, running functions get a grace
period, finished results are brought back; see `attempt` for what becomes of the rest. Cancelling
`run` is not: functions are cancelled at once and nothing is sent.

    agent = Agent(client, "home", backoff=Backoff(uniform=random.Random().uniform))

    @agent.function("double")
    def double(number: float) -> float:
        return 2 * number

    await agent.run()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from colonist_agent.announcer import Announcer
from colonist_agent.asker import Asker, Grant, Patience
from colonist_agent.attempt import Attempt
from colonist_agent.counters import Counters
from colonist_agent.function import F, Registry
from colonist_agent.lost import LostGrants
from colonist_agent.outbox import Courier, Letter, MemoryOutbox, Outbox
from colonist_agent.outcome import Abandoned, Done, Failed, Outcome, Returned, Stop, failed
from colonist_agent.reporter import Reporting
from colonist_agent.watch import Watch
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff
from colonist_client.transport import UnreachableError
from colonist_protocol.message import Message
from colonist_protocol.process import CloseFailed, CloseSuccessful, ReleaseProcess

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much at once, and how long things may take."""

    slots: int = 1
    poll_s: int = 30
    check_s: float = 15.0
    stop_grace_s: float = 20.0
    abandon_s: float = 10.0
    deliver_s: float = 10.0
    queue_limit: int = 1000
    cpu: str = ""
    memory: str = ""


class Agent:
    """One executor of one colony. `run` it once."""

    def __init__(
        self,
        client: Client,
        colony: str,
        *,
        backoff: Backoff,
        name: str = "",
        registry: Registry | None = None,
        limits: Limits | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        """`name` is the executor's; "" asks the server for it."""
        self.counters = Counters()
        self.registry = registry or Registry()
        self._limits = limits or Limits()
        self._client = client
        self._slots = asyncio.Semaphore(self._limits.slots)
        self._running: dict[str, Attempt] = {}
        self._attending: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._reporting = Reporting(backoff=backoff, queue_limit=self._limits.queue_limit)
        self._watch = Watch(
            client, backoff=backoff, hold_s=self._limits.poll_s, check_s=self._limits.check_s
        )
        self._courier = Courier(
            client, outbox or MemoryOutbox(), backoff=backoff, counters=self.counters
        )
        self._announcer = Announcer(client, colony, self.registry, name=name, backoff=backoff)
        self._lost = LostGrants(
            client,
            colony,
            backoff=backoff,
            is_ours=lambda each: each in self._running or self._courier.holds(each),
        )
        self._asker = Asker(
            client,
            colony,
            patience=Patience.of(backoff, poll_s=self._limits.poll_s),
            counters=self.counters,
            cpu=self._limits.cpu,
            memory=self._limits.memory,
            slots=self._limits.slots,
            on_lost=self._lost.give_back,
        )

    def function(self, name: str, *, is_renewed: bool = True) -> Callable[[F], F]:
        """Decorate a function to register it under a name; see `Registry.function`."""
        return self.registry.function(name, is_renewed=is_renewed)

    def stop(self) -> None:
        """Tell `run` to end gently. Idempotent; safe in a signal handler of the loop."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, or until cancelled."""
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._courier.run()),
                group.create_task(self._announcer.run()),
            ]
            asking = group.create_task(self._ask(group))
            try:
                await self._stopping.wait()
                asking.cancel()
                await self._drain()
            except asyncio.CancelledError:
                self._stop_all()
                asyncio.get_running_loop().call_later(self._limits.abandon_s, self._abandon_all)
                raise
            for task in background:
                task.cancel()

    async def _ask(self, group: asyncio.TaskGroup) -> None:
        await self._lost.give_back()
        while True:
            await self._courier.room()
            await self._slots.acquire()
            try:
                grant = await self._asker.next(self._courier.hurry)
            except BaseException:
                self._slots.release()
                raise
            self.counters.assigned += 1
            task = group.create_task(self._attend(grant))
            self._attending.add(task)
            task.add_done_callback(self._attending.discard)

    async def _attend(self, grant: Grant) -> None:
        process = grant.process
        attempt = Attempt(
            grant,
            client=self._client,
            registry=self.registry,
            reporting=self._reporting,
            watch=self._watch,
        )
        try:
            await self._replace(attempt)
            if self._stopping.is_set():
                attempt.stop(Stop.AGENT_STOPPED)
            await self._settle(attempt, await self._outcome(attempt))
        finally:
            self.counters.lines_dropped += attempt.lines_dropped
            attempt.ended.set()
            if self._running.get(process.processid) is attempt:
                del self._running[process.processid]
            self._slots.release()

    async def _outcome(self, attempt: Attempt) -> Outcome:
        try:
            return await attempt.run()
        except Exception as error:
            self.counters.crashes += 1
            log.exception("attempt_crashed process=%s", attempt.process.processid)
            return failed(f"the agent failed: {type(error).__name__}")

    async def _replace(self, attempt: Attempt) -> None:
        # The server gave us again what an earlier attempt of ours has not let go of yet.
        process_id = attempt.process.processid
        while (earlier := self._running.get(process_id)) is not None:
            earlier.stop(Stop.LOST)
            await earlier.ended.wait()
            if self._running.get(process_id) is earlier:
                del self._running[process_id]
        self._running[process_id] = attempt

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        process = attempt.process
        message: Message
        if isinstance(outcome, Returned):
            outcome = await self._give_back(attempt, outcome)
        match outcome:
            case Done(out=out):
                self.counters.succeeded += 1
                message = CloseSuccessful(processid=process.processid, out=out)
            case Failed(errors=errors):
                self.counters.failed += 1
                message = CloseFailed(processid=process.processid, errors=list(errors))
            case Abandoned(reason=reason):
                self.counters.abandoned += 1
                log.warning("attempt_abandoned process=%s reason=%r", process.processid, reason)
                return
            case Returned():
                self.counters.returned += 1
                return
        request = self._client.pack(message, attempt.seqs)
        letter = Letter(process_id=process.processid, request=request, until_s=attempt.until_s)
        await self._courier.send(letter)

    async def _give_back(self, attempt: Attempt, outcome: Returned) -> Outcome:
        """Release the process; what to do instead where that cannot be done."""
        process_id = attempt.process.processid
        try:
            async with asyncio.timeout(self._limits.deliver_s):
                message = ReleaseProcess(processid=process_id)
                await self._client.deliver(self._client.pack(message, attempt.seqs))
        except (ServerError, UnreachableError, TimeoutError) as error:
            log.warning("process_not_given_back process=%s: %s", process_id, error)
            if not attempt.has_lease:
                return failed(outcome.reason)
            return Abandoned(reason="agent stopped; the process goes back when its lease is over")
        log.info("process_given_back process=%s", process_id)
        return outcome

    async def _drain(self) -> None:
        log.info("agent_stopping running=%d undelivered=%d", len(self._running), self._undelivered)
        if not await self._all_ended(self._limits.stop_grace_s):
            self._stop_all()
            if not await self._all_ended(self._limits.abandon_s):
                self._abandon_all()
                await self._all_ended(self._limits.abandon_s)
        await self._deliver_rest()

    async def _deliver_rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.deliver_s):
                await self._courier.idle()
        if self._undelivered:
            log.error("agent_stopped_with_undelivered_results count=%d", self._undelivered)

    async def _all_ended(self, within_s: float) -> bool:
        if not self._attending:
            return True
        _, running = await asyncio.wait(self._attending, timeout=within_s)
        return not running

    @property
    def _undelivered(self) -> int:
        return self._courier.pending

    def _stop_all(self) -> None:
        for attempt in tuple(self._running.values()):
            attempt.stop(Stop.AGENT_STOPPED)

    def _abandon_all(self) -> None:
        for attempt in tuple(self._running.values()):
            attempt.abandon()
