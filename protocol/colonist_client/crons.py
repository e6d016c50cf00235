"""Calls about crons: COLONIES-RPC section 2.8."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import codec
from colonist_protocol import cron as wire
from colonist_protocol.cron import Cron
from colonist_protocol.workflow import WorkflowSpec


class CronCalls(Caller):
    """What starts workflows at set times."""

    async def add_cron(
        self,
        colony: str,
        name: str,
        spec: WorkflowSpec,
        *,
        expression: str = "",
        interval_s: int = wire.OFF,
        is_random: bool = False,
        waits: bool = False,
    ) -> Cron:
        """Make a cron with an expression, or with an interval of a second or more.

        `waits`: a run waits until the workflow of the one before has ended.
        """
        new = Cron(
            colonyname=colony,
            name=name,
            workflowspec=codec.encode(spec).decode(),
            cronexpression=expression,
            interval=interval_s,
            random=is_random,
            waitforprevprocessgraph=waits,
        )
        return await self.write(wire.AddCron(cron=new), Cron)

    async def cron(self, cron_id: str) -> Cron:
        """Read a cron: its next and last run, and why it runs no more, if it does not."""
        return await self.read(wire.GetCron(cronid=cron_id), Cron)

    async def crons(self, colony: str, *, count: int = wire.MAX_LIST) -> list[Cron]:
        """List a colony's crons, oldest first."""
        return await self.read_list(wire.GetCrons(colonyname=colony, count=count), Cron)

    async def run_cron(self, cron_id: str) -> Cron:
        """Start a cron's workflow now; the cron as it was before."""
        return await self.write(wire.RunCron(cronid=cron_id), Cron)

    async def remove_cron(self, cron_id: str) -> None:
        """Remove a cron; workflows that it started go on."""
        await self.order(wire.RemoveCron(cronid=cron_id))
