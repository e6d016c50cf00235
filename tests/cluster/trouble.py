"""What goes wrong, drawn from a seed: kills (-9), standstills (SIGSTOP) and starts anew.

Members of etcd and servers come to harm independently, but never more than one member at once, and
never all servers of several.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

TRIES = 5


class Victim(Protocol):
    """A process that can be harmed."""

    @property
    def name(self) -> str: ...

    async def kill(self) -> None: ...

    async def start(self) -> None: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """After a rest, some are killed or stand still for a while."""

    rest_s: float
    is_kill: bool
    victims: tuple[int, ...]
    lasts_s: float

    def __str__(self) -> str:
        what = "kill" if self.is_kill else "freeze"
        return f"after {self.rest_s:.2f} s {what} {self.victims} for {self.lasts_s:.2f} s"


def troubles(
    seed: str, count: int, *, at_once: int, rest_s: float, lasts_s: float
) -> Iterator[Trouble]:
    """Without end; the same for the same seed."""
    dice = random.Random(seed)
    while True:
        yield Trouble(
            rest_s=dice.uniform(0.1, 2 * rest_s),
            is_kill=dice.random() < 0.5,
            victims=tuple(dice.sample(range(count), dice.randint(1, at_once))),
            # Mostly short, now and then long.
            lasts_s=dice.uniform(0.05, lasts_s) * dice.choice((0.3, 0.3, 1.0)),
        )


@dataclass
class Harm:
    """Does it, and remembers what it did when."""

    diary: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def _write(self, text: str) -> None:
        self.diary.append(f"{time.monotonic() - self._began:7.2f} s  {text}")

    async def run(self, victims: Sequence[Victim], plan: Iterable[Trouble]) -> None:
        """One trouble after the other; cancelled, it leaves all of them well."""
        hurt: set[int] = set()
        frozen: set[int] = set()
        try:
            for trouble in plan:
                await asyncio.sleep(trouble.rest_s)
                names = ", ".join(victims[at].name for at in trouble.victims)
                self._write(f"{'kill' if trouble.is_kill else 'freeze'} {names}")
                if trouble.is_kill:
                    hurt |= set(trouble.victims)
                    await asyncio.gather(*[victims[at].kill() for at in trouble.victims])
                else:
                    frozen |= set(trouble.victims)
                    for at in trouble.victims:
                        victims[at].freeze()
                await asyncio.sleep(trouble.lasts_s)
                await self._heal(victims, hurt, frozen)
        finally:
            await self._heal(victims, hurt, frozen)

    async def _heal(self, victims: Sequence[Victim], hurt: set[int], frozen: set[int]) -> None:
        for at in sorted(frozen):
            self._write(f"thaw {victims[at].name}")
            victims[at].thaw()
            frozen.discard(at)
        for at in sorted(hurt):
            self._write(f"start {victims[at].name}")
            await self._start(victims[at])
            hurt.discard(at)

    async def _start(self, victim: Victim) -> None:
        """As a supervisor does: a server may find nobody to talk to and give up."""
        for left in reversed(range(TRIES)):
            try:
                await victim.start()
            except AssertionError:
                if not left:
                    raise
                self._write(f"{victim.name} gave up at its start")
            else:
                return


@contextlib.asynccontextmanager
async def harming(
    harm: Harm, *streams: tuple[Sequence[Victim], Iterable[Trouble]]
) -> AsyncGenerator[None, None]:
    """Harm goes on for the length of the block; at its end everything is well."""
    tasks = [asyncio.create_task(harm.run(victims, plan)) for victims, plan in streams]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
