"""One attempt at one process, from its assignment to the close that goes to the courier.

It ends early when its lease (`maxexectime`, counted from the arrival of the assignment) is over,
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

from colonist_agent.children import Children
from colonist_agent.context import Context
from colonist_agent.follower import Follower
from colonist_agent.function import Registry, Runnable
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
from colonist_protocol.process import Process

COMPLAIN_S: Final = 30.0

log = logging.getLogger(__name__)


class Attempt:
    """Runs one process once. `run` never raises, whatever the function does."""

    def __init__(
        self,
        process: Process,
        *,
        client: Client,
        registry: Registry,
        reporting: Reporting,
        watch: Watch,
    ) -> None:
        self.process = process
        self.until_s = _lease_end(process)
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
            limits=reporting,
            on_refused=self._follower.look,
        )

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
        loop = asyncio.get_running_loop()
        timer = (
            loop.call_at(self.until_s, self.stop, Stop.LEASE_OVER)
            if self.until_s is not None
            else None
        )
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._reporter.run()),
                    group.create_task(self._follower.run()),
                ]
                outcome = await self._attend(group)
                await self._reporter.finish(is_wanted=not isinstance(outcome, Abandoned))
                for task in beside:
                    task.cancel()
                if self._stop in (Stop.CANCELLED, Stop.LOST):  # since then, too
                    outcome = Abandoned(reason=str(self._stop))
        finally:
            self._context.end()
            if timer is not None:
                timer.cancel()
            self.ended.set()
        return outcome

    async def _attend(self, group: asyncio.TaskGroup) -> Outcome:
        spec = self.process.spec
        runnable = self._registry.find(spec.funcname)
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


def _lease_end(process: Process) -> float | None:
    limit_s = process.spec.maxexectime
    if limit_s <= 0:
        return None
    return asyncio.get_running_loop().time() + limit_s
