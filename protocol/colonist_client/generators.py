"""Calls about generators: COLONIES-RPC section 2.8."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import codec
from colonist_protocol import generator as wire
from colonist_protocol.generator import Generator
from colonist_protocol.workflow import WorkflowSpec


class GeneratorCalls(Caller):
    """What collects arguments until they are enough for a workflow."""

    async def add_generator(
        self, colony: str, name: str, spec: WorkflowSpec, *, trigger: int, timeout_s: int = 0
    ) -> Generator:
        """Make a generator that starts a workflow for every `trigger` arguments.

        Fewer are enough once the oldest has waited for `timeout_s`; 0 or less: for ever.
        """
        new = Generator(
            colonyname=colony,
            name=name,
            workflowspec=codec.encode(spec).decode(),
            trigger=trigger,
            timeout=timeout_s,
        )
        return await self.write(wire.AddGenerator(generator=new), Generator)

    async def generator(self, generator_id: str) -> Generator:
        """Read a generator; `queuesize` arguments wait at it."""
        return await self.read(wire.GetGenerator(generatorid=generator_id), Generator)

    async def generator_by_name(self, colony: str, name: str) -> Generator:
        """Read a generator by its name."""
        message = wire.ResolveGenerator(colonyname=colony, generatorname=name)
        return await self.read(message, Generator)

    async def generators(self, colony: str, *, count: int = wire.MAX_LIST) -> list[Generator]:
        """List a colony's generators, oldest first."""
        message = wire.GetGenerators(colonyname=colony, count=count)
        return await self.read_list(message, Generator)

    async def pack_generator(self, generator_id: str, argument: str) -> None:
        """Give a generator an argument. After a lost reply it may be there: do not repeat it."""
        await self.order(wire.PackGenerator(generatorid=generator_id, arg=argument))

    async def remove_generator(self, generator_id: str) -> None:
        """Remove a generator and the arguments that wait at it."""
        await self.order(wire.RemoveGenerator(generatorid=generator_id))
