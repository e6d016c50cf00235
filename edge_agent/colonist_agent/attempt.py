"""One attempt at one process, from its assignment to the close that goes to the courier.

It ends early when its lease (see `lease`) is over,
when the server says that the process is cancelled, final or no longer ours, or when the agent
stops. The first reason counts. Only in the last case is the server told anything: else it has put
the process back or ended it already.

When the agent stops before a function does, the process is given back (`releaseprocessmsg`, which
a Colonist server knows). Where that is refused or cannot be said, a process with a lease is left
alone: the server puts it back when the lease is over. One without a lease would stay assigned for
ever, so it is closed as failed: "agent stopped".
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from colonist_agent.asker import Grant
from colonist_agent.children import Children
from colonist_agent.context import Context
from colonist_agent.follower import Follower
from colonist_agent.function import Registry, Runnable
from colonist_agent.lease import Lease
from colonist_agent.mailbox import Mailbox
from colonist_agent.outcome import (
    SILENT,
    Abandoned,
    FailError,
    Outcome,
    Returned,
    Stop,
    done,
    failed,
)
from colonist_agent.reporter import Reporter, Reporting
from colonist_agent.watch import Watch
from colonist_client.client import Client

COMPLAIN_S: Final = 30.0

log = logging.getLogger(__name__)


class Attempt:
    """Runs one process once. `run` never raises, whatever the function does."""

    def __init__(
        self,
        grant: Grant,
        *,
        client: Client,
        registry: Registry,
        reporting: Reporting,
        watch: Watch,
    ) -> None:
        process = grant.process
        self.process = process
        self.seqs = grant.seqs
        self._lease = Lease(
            process,
            client=client,
            backoff=reporting.backoff,
            seqs=grant.seqs,
            since_s=grant.asked_s,
            on_over=self.stop,
        )
        self._registry = registry
        self._stop: Stop | None = None
        self.ended = asyncio.Event()
        self._work: asyncio.Task[Outcome] | None = None
        wake = asyncio.Event()
        self._mailbox = Mailbox(process.processid, limit=reporting.queue_limit, wake=wake)
        self._context = Context(process, self._mailbox, Children(process, watch))
        self._follower = Follower(process, watch=watch, on_stop=self.stop)
        self._reporter = Reporter(
            process,
            self._mailbox,
            wake,
            client=client,
            seqs=grant.seqs,
            limits=reporting,
            on_refused=self._follower.look,
        )

    @property
    def until_s(self) -> float | None:
        """Until when somebody wants its result; None: always."""
        return self._lease.until_s if self.seqs is None else None

    @property
    def has_lease(self) -> bool:
        """Whether the server takes the process back by itself."""
        return self._lease.until_s is not None

    @property
    def lines_dropped(self) -> int:
        """Log lines and attributes that never reached the server."""
        return self._mailbox.dropped

    def stop(self, reason: Stop) -> None:
        """Tell the function to end. Idempotent."""
        if self._stop is not None:
            return
        self._stop = reason
        self._context.cancelled.set()
        self._context.end()
        if self._work is not None:
            self._work.cancel()
            asyncio.get_running_loop().call_later(COMPLAIN_S, self._complain)

    def abandon(self) -> None:
        """Wait no longer for a function that was told to end and does not; its thread may go on."""
        if self._work is not None:
            self._work.cancel()

    async def run(self) -> Outcome:
        """Run the function to its end; what is to be sent."""
        runnable = self._registry.find(self.process.spec.funcname)
        self._lease.start(is_renewed=runnable is not None and runnable.is_renewed)
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._reporter.run()),
                    group.create_task(self._follower.run()),
                    group.create_task(self._lease.run()),
                ]
                outcome = await self._attend(group, runnable)
                await self._reporter.finish(is_wanted=not isinstance(outcome, Abandoned))
                for task in beside:
                    task.cancel()
                if self._stop in (Stop.CANCELLED, Stop.LOST):  # since then, too
                    outcome = Abandoned(reason=str(self._stop))
        finally:
            self._context.end()
            self._lease.end()
            self.ended.set()
        return outcome

    async def _attend(self, group: asyncio.TaskGroup, runnable: Runnable | None) -> Outcome:
        spec = self.process.spec
        if runnable is None:
            here = ", ".join(self._registry.names()) or "none"
            return failed(f"no function {spec.funcname!r} on this agent; it has: {here}")
        self._work = group.create_task(self._call(runnable))
        if self._stop is not None:
            self._work.cancel()
        await asyncio.wait((self._work,))
        return self._judge(self._work)

    async def _call(self, runnable: Runnable) -> Outcome:
        spec = self.process.spec
        await self._lease.begun()
        try:
            value = await runnable.run(self._context, spec.arguments(), spec.keywords())
        except FailError as error:
            return failed(*error.reasons)
        except (Exception, SystemExit) as error:  # the function's own faults, whatever they are
            log.warning("function_raised process=%s", self.process.processid, exc_info=True)
            return failed(f"{type(error).__name__}: {error}")
        return done(value)

    def _judge(self, work: asyncio.Task[Outcome]) -> Outcome:
        if self._stop in SILENT:
            return Abandoned(reason=str(self._stop))
        if not work.cancelled():
            return work.result()
        if self._stop is Stop.AGENT_STOPPED:
            return Returned(reason=str(self._stop))
        return failed("the function was cancelled")

    def _complain(self) -> None:
        if self._work is not None and not self._work.done():
            log.warning(
                "function_does_not_end process=%s function=%r told=%r: it holds a slot; "
                "let it look at Context.cancelled",
                self.process.processid,
                self.process.spec.funcname,
                str(self._stop),
            )
