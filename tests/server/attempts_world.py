"""Executors that work, sleep, reboot and are cut off, with clocks that drift, and their server.

Each does as `docs/howto/leases.md` tells executors to. A judge who knows true time looks whether
two ever work at one process at once, and in the end what everybody was told, and what is stored.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from colonist_core import lease
from colonist_core.attempt import winner
from colonist_core.process import What
from colonist_protocol.process import AssignProcess, GetProcesses, Process, Renew, State
from colonist_server.config import ServerConfig
from colonist_server.repo import keys
from colonist_server.repo.clock import Timer
from colonist_server.repo.records import decode_closed, decode_live, decode_log, decode_result
from colonist_server.store.interface import Store
from colonist_server.work import at_work
from tests.server.people import World
from tests.support import attempts, sealing
from tests.support.attempts import OVER, Held, ask, held
from tests.support.rooms import COLONY, EPOCH_NS, OWNER, SERVER_KEYS, key
from tests.support.sealing import Sealed

NAMES: Final = ("ada", "ben", "cyd")
LIMIT_S: Final = 10


class DriftingClock:
    """The server's clock: so many times as fast as the loop's, which is true."""

    def __init__(self, rate: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._rate = rate
        self._last_ns = 0

    def now_ns(self) -> int:
        self._last_ns = max(EPOCH_NS + int(self.monotonic() * 1e9), self._last_ns + 1)
        return self._last_ns

    def monotonic(self) -> float:
        return self._loop.time() * self._rate

    def call_at(self, when: float, callback: Any) -> Timer:
        return self._loop.call_at(when / self._rate, callback)


@asynccontextmanager
async def server(store: Store, rate: float) -> AsyncGenerator[World]:
    """A server whose clock runs at a rate."""
    config = ServerConfig(owner=OWNER.id, stale_s=0.0)
    clock = DriftingClock(rate)
    async with at_work(config, store, clock, OWNER.id, server_keys=SERVER_KEYS) as dispatch:
        yield World(dispatch)


class Worker:
    """One executor. It works while its own clock says that it may."""

    def __init__(self, name: str, rate: float) -> None:
        self.name = name
        self.rate = rate
        self.held: Held | None = None
        self.until = 0.0
        """By its clock."""
        self.is_asleep = False
        self.seq = 0
        self.renewals = 0
        self.results: list[tuple[Sealed, Held]] = []
        """Kept until the server has answered them, and here beyond that, to be repeated."""
        self.answers: dict[str, list[str]] = {}
        self.lines: set[tuple[str, str]] = set()

    def clock(self) -> float:
        """Its reading; it stands for nothing but differences."""
        return asyncio.get_running_loop().time() * self.rate

    def works_at(self) -> str:
        """The process that it is at work on at this instant; "": none."""
        is_at_it = self.held is not None and not self.is_asleep and self.clock() < self.until
        return self.held.process if self.held is not None and is_at_it else ""

    def start(self, made: Held, sent: float, told_s: float | None) -> None:
        """It was told that it may work, by a reply to what it sent then."""
        if self.held is None or self.held.token != made.token:
            self.seq = self.renewals = 0
        self.held = made
        left_s = lease.stop_after_s(told_s or 0.0, never_overlaps=True)
        self.until = max(sent + left_s, self.until)

    def stop(self) -> None:
        self.held = None
        self.until = 0.0

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq


class Scene:
    """All of them, and what may happen. Each step leaves no two at work on one process."""

    def __init__(self, rates: list[float]) -> None:
        self.workers = [Worker(name, rate) for name, rate in zip(NAMES, rates, strict=True)]
        self.made: World
        self.processes: list[str] = []
        self.told: dict[tuple[str, str], set[str]] = {}
        """What was answered to the results of an attempt, by process and token."""
        self.sent: dict[tuple[str, str], bytes] = {}
        self.counts: dict[str, int] = {}

    async def step(self, what: str, worker: Worker, fate: str) -> None:
        """One action of one worker; `fate`: what becomes of its request and of the reply."""
        if worker.is_asleep and what not in ("wake", "reboot"):
            return
        self.counts[what] = self.counts.get(what, 0) + 1
        await getattr(self, f"_{what}")(worker, fate)
        self.judge()

    def judge(self) -> None:
        """No two work at once."""
        busy = [at for worker in self.workers if (at := worker.works_at())]
        assert len(busy) == len(set(busy)), "two work at once"

    async def _say(self, worker: Worker, sealed: Sealed, fate: str) -> Any:
        """None: the worker hears no answer, whether the request came or not."""
        if fate == "request lost":
            return None
        reply = await attempts.told(self.made, sealed)
        return None if fate == "reply lost" else reply

    async def _submit(self, worker: Worker, fate: str) -> None:
        del worker
        late = {"lateresult": "reject"} if fate != "heard" else {}
        shown = await self.made.submit(
            "uma", maxexectime=LIMIT_S, maxretries=-1, overlap="never", **late
        )
        self.processes.append(shown.processid)

    async def _take(self, worker: Worker, fate: str) -> None:
        if worker.works_at():
            return
        worker.stop()  # what it had it has given up
        message = AssignProcess(colonyname=COLONY, timeout=-1)
        sealed = sealing.of_now(self.made.dispatch, message, key(worker.name))
        sent = worker.clock()
        reply = await self._say(worker, sealed, fate)
        if reply is None:  # the same bytes again
            reply = await attempts.told(self.made, sealed)
        if isinstance(reply, dict) and "attempt" in reply:
            mine = held(self.made, worker.name, reply)
            worker.start(mine, sent, mine.lease)

    async def _renew(self, worker: Worker, fate: str) -> None:
        if worker.held is None:
            return
        sent = worker.clock()
        for count in (worker.renewals + 1, 0):
            message = Renew(processid=worker.held.process, count=count)
            sealed = worker.held._replace(made=self.made).sealed(message, worker.next_seq())
            reply = await self._say(worker, sealed, fate)
            if reply == OVER:
                worker.stop()
            if isinstance(reply, dict):
                worker.renewals = max(worker.renewals, count)
                worker.start(worker.held, sent, reply["lease"])
            if reply != "invalid_value":  # too early
                return

    async def _log(self, worker: Worker, fate: str) -> None:
        if worker.held is None:
            return
        seq = worker.next_seq()
        mine = worker.held._replace(made=self.made)
        for _ in range(2):
            line = f"{mine.number} {seq}"
            reply = await mine.log(line, seq) if fate != "request lost" else None
            if reply == {}:
                worker.lines.add((mine.process, line))

    async def _finish(self, worker: Worker, fate: str, *, is_good: bool = True) -> None:
        """Its work is done, as far as it knows: it keeps the result until it is answered."""
        if not worker.works_at() or worker.held is None:
            return
        mine = worker.held
        text = f"{worker.name} {mine.number}"
        message = mine.success(text) if is_good else mine.failure(text)
        sealed = mine.sealed(message, worker.next_seq())
        worker.results.append((sealed, mine))
        worker.stop()
        await self._deliver(worker.results[-1], fate, worker)

    async def _fail(self, worker: Worker, fate: str) -> None:
        await self._finish(worker, fate, is_good=False)

    async def _repeat(self, worker: Worker, fate: str) -> None:
        for result in worker.results[-3:]:
            await self._deliver(result, fate, worker)

    async def _deliver(self, result: tuple[Sealed, Held], fate: str, worker: Worker) -> None:
        sealed, mine = result
        reply = await self._say(worker, sealed, fate)
        if reply is not None:
            told = self.told.setdefault((mine.process, mine.token), set())
            told.add(attempts.outcome(reply))

    async def _release(self, worker: Worker, fate: str) -> None:
        if worker.held is None:
            return
        mine = worker.held._replace(made=self.made)
        worker.stop()  # before it says so
        if fate != "request lost":
            await mine.release()

    async def _pause(self, worker: Worker, fate: str) -> None:
        del fate
        worker.is_asleep = True

    async def _wake(self, worker: Worker, fate: str) -> None:
        """Its clock may have stood: it goes on only after the reply to a renewal."""
        if worker.is_asleep:
            worker.is_asleep = False
            worker.until = 0.0
            await self._renew(worker, fate)

    async def _reboot(self, worker: Worker, fate: str) -> None:
        """It finds what it was granted, and goes on after a renewal."""
        worker.is_asleep = False
        worker.stop()
        message = GetProcesses(
            colonyname=COLONY, count=9, state=State.RUNNING, executorid=key(worker.name).id
        )
        done = {mine.token for _, mine in worker.results}
        for shown in await ask(self.made, message, worker.name):
            if "attempt" in shown and shown["attempt"]["token"] not in done:
                worker.held = held(self.made, worker.name, shown)
                worker.seq, worker.until = 1000 + worker.seq, 0.0
                await self._renew(worker, fate)
                break

    async def pass_time(self, seconds: float) -> None:
        """Let time go by, and look all the while."""
        for _ in range(10):
            await asyncio.sleep(seconds / 10)
            self.judge()

    # -- in the end

    async def reckon(self) -> None:
        """Everybody says again what was perhaps not heard; then compare."""
        for worker in self.workers:
            worker.is_asleep = False
            for result in worker.results:
                await self._deliver(result, "heard", worker)
        stored = await self.made.dump()
        for process in self.processes:
            self._reckon_one(process, stored)
        assert all(len(told) == 1 for told in self.told.values()), self.told
        found = Counter(
            (record.process.hex(), record.message)
            for record in (
                decode_log(value) for each, value in stored.items() if each.startswith(keys.LOG)
            )
        )
        # Each stands at its process and in its executor's log.
        lines = set[tuple[str, str]]().union(*(worker.lines for worker in self.workers))
        assert found == Counter(dict.fromkeys(lines, 2))

    def _reckon_one(self, process: str, stored: dict[bytes, bytes]) -> None:
        pid = bytes.fromhex(process)
        outcomes = {token: told for (id, token), told in self.told.items() if id == process}
        counted = [token for token, told in outcomes.items() if "counted" in told]
        assert len(counted) <= 1
        end = stored.get(keys.closed(pid))
        closed = decode_closed(end) if end is not None else None
        live = closed.live if closed is not None else decode_live(stored[keys.live(pid)])
        ends = [each for each in live.events if each.what in (What.SUCCEEDED, What.FAILED)]
        assert len(ends) == len(counted) == (closed is not None)
        for token in outcomes:
            number, nonce, _ = token.split(".")
            own = (int(number), bytes.fromhex(nonce))
            record = stored.get(keys.result(pid, *own))
            assert (record is None) == (token in counted), "no result without a record"
            if record is not None:
                assert decode_result(record).payload
            else:
                assert winner(live) == own

    async def read(self, process: str) -> Process:
        return await self.made.get(NAMES[0], process)
