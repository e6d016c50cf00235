"""Sets the stage: colonies with approved executors, and queues filled in advance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.connection import send_all
from benchmarks.place import Server
from benchmarks.wire import Key, spec

KIND = "worker"


@dataclass(frozen=True, slots=True)
class Executor:
    """An approved executor; `poll(s)` is its ready-made request for work."""

    key: Key
    name: str
    colony: str
    kind: str = KIND

    def poll(self, timeout_s: int) -> bytes:
        """Ask for work."""
        return self.key.assign(self.colony, timeout_s)

    def submits(self, count: int, kind: str | None = None) -> list[bytes]:
        """So many distinct submits, signed in advance."""
        kind = kind or self.kind
        return [self.key.submit(spec(self.colony, kind, serial)) for serial in range(count)]

    def submit_for(self, serial: int, *names: str) -> bytes:
        """A submit of a process that names its executors."""
        return self.key.submit(spec(self.colony, self.kind, serial, names))


async def add_colony(server: Server, name: str) -> Key:
    """A new colony; the key of its owner."""
    owner = Key()
    colony = {"colonyid": owner.id, "name": name}
    await send_all(server.port, [server.owner.call("addcolonymsg", colony=colony)])
    return owner


async def add_executors(
    server: Server, colony: str, owner: Key, count: int, *, prefix: str = "e", kind: str = KIND
) -> list[Executor]:
    """So many executors, added and approved by the colony's owner."""
    made = [Executor(Key(), f"{prefix}-{number}", colony, kind) for number in range(count)]
    await send_all(server.port, _additions(owner, made))
    await send_all(server.port, _approvals(owner, made))
    return made


async def stage(server: Server, executors: int, colony: str = "bench") -> list[Executor]:
    """One colony with so many approved executors."""
    owner = await add_colony(server, colony)
    return await add_executors(server, colony, owner, executors)


def _additions(owner: Key, made: list[Executor]) -> Iterator[bytes]:
    for each in made:
        yield owner.call(
            "addexecutormsg",
            executor={
                "executorid": each.key.id,
                "executortype": each.kind,
                "executorname": each.name,
                "colonyname": each.colony,
            },
        )


def _approvals(owner: Key, made: list[Executor]) -> Iterator[bytes]:
    for each in made:
        yield owner.call("approveexecutormsg", colonyname=each.colony, executorname=each.name)
