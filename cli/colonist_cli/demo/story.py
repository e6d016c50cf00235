"""`colonist demo`: four acts, each of which is checked; any surprise ends it with exit code 1.

1. A colony: server, broker, bridge, and two agents, one over HTTP and one over MQTT.
2. Work: both agents run it at once; in the middle the server is killed and started again.
3. An agent is killed while it runs something; its work is given to the other one.
4. A burst of small work, for the rate.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colonist_cli.colony import key_of
from colonist_cli.demo import jobs
from colonist_cli.demo.board import Agents, Row, read_journals, table
from colonist_cli.demo.stage import SCENE, WAYS, Stage, client_of, stage
from colonist_cli.exits import CliError, Exit
from colonist_cli.loop import run_until_signal
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import is_transient
from colonist_client.transport import UnreachableError
from colonist_protocol.process import Process, State

if TYPE_CHECKING:
    from rich.console import Console

LIMIT_S: Final = 60.0
FILES: Final = 8
BURST: Final = 200
LOOK_S: Final = 0.1
WIDTH: Final = 128

_KILL_SERVER_AFTER: Final = 8


def run_blocking(environment: Mapping[str, str], *, keep: bool) -> None:
    """Tell the story. Raises `CliError` when anything is not as it should be."""
    logging.basicConfig(level=logging.CRITICAL)
    root = Path(tempfile.mkdtemp(prefix="colonist-demo-"))
    interrupted: list[bool] = []

    async def play(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(root, environment))
            waiting = group.create_task(stop.wait())
            await asyncio.wait((telling, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not telling.done():
                interrupted.append(True)
                telling.cancel()
            waiting.cancel()

    try:
        run_until_signal(play)
    finally:
        if keep:
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    if interrupted:
        raise CliError(Exit.INTERRUPTED, "")


@dataclass(slots=True, kw_only=True)
class Story:
    """What is going on."""

    stage: Stage
    client: Client
    agents: Agents
    console: Console
    started_s: float
    rows: list[Row] = field(default_factory=list[Row])

    def say(self, text: str, style: str = "") -> None:
        """A line of the story, with the time since its beginning."""
        from rich.text import Text

        now_s = asyncio.get_running_loop().time() - self.started_s
        line = Text(f"{now_s:5.1f} s  ", style="dim") + Text(text, style=style)
        self.console.print(line)

    async def look(self) -> None:
        """Learn what has become of every process."""
        rows = [row for row in self.rows if not row.is_done]
        for row, found in zip(
            rows,
            await asyncio.gather(*(self._glance(row.process) for row in rows)),
            strict=True,
        ):
            row.process = found

    def has_begun(self, row: Row) -> bool:
        """Whether an agent is running a process at this moment."""
        self.read_runs()
        return bool(row.runs) and row.process.state == State.RUNNING

    def read_runs(self) -> None:
        """Learn from the agents' journals who ran what."""
        runs = read_journals(self.stage.journals())
        for row in self.rows:
            row.runs = runs.get(row.process.processid, [])

    @property
    def done(self) -> int:
        """How many have ended."""
        return sum(row.is_done for row in self.rows)

    async def _glance(self, process: Process) -> Process:
        try:
            return await self.client.get(process.processid)
        except (ServerError, UnreachableError) as error:
            if is_transient(error):  # the server is being started again
                return process
            raise


async def _tell(root: Path, environment: Mapping[str, str]) -> None:
    started_s = asyncio.get_running_loop().time()
    files, console = _files(), _console()
    console.print("Starting a server, a broker with a bridge, and two agents ...\n")
    try:
        async with (
            asyncio.timeout(LIMIT_S),
            stage(root, environment, files) as made,
            client_of(made.place, made.url) as client,
        ):
            agents = Agents({key_of(made.place, name).id: name for name in WAYS}, WAYS)
            story = Story(
                stage=made, client=client, agents=agents, console=console, started_s=started_s
            )
            await _play(story, files)
    except TimeoutError:
        raise CliError(Exit.FAILED, f"the demo did not end within {LIMIT_S:g} s") from None


def _files() -> list[Path]:
    ours = (Path(sys.executable).resolve(), Path(jobs.__file__))
    return jobs.real_files(ours, FILES)


async def _play(story: Story, files: Sequence[Path]) -> None:
    loop = asyncio.get_running_loop()
    _introduce(story)
    begun_s = loop.time()
    await _work(story, files)
    victim = await _agent_dies(story)
    took_s = loop.time() - begun_s
    story.read_runs()
    story.console.print()
    story.console.print(table(story.rows, story.agents, columns=story.console.width))
    _judge(story)
    await _start_again(story, victim)
    rate = await _burst(story)
    _sum_up(story, took_s, rate)


def _introduce(story: Story) -> None:
    made = story.stage
    story.say("A colony on this machine, in a temporary folder, with keys of its own:", "bold")
    story.say(f"  server      {made.url}  (pid {made.server.pid}, SQLite, every commit fsynced)")
    story.say(f"  broker      {made.broker.url}  with a bridge to the server")
    for name, way in story.agents.ways.items():
        through = "HTTP" if way == "http" else "MQTT, through the bridge, as a device would"
        story.say(f"  {name}  over {through}  (pid {made.agents[name].pid})")


async def _work(story: Story, files: Sequence[Path]) -> None:
    wanted = jobs.work(SCENE, files)
    submitted = await asyncio.gather(*(story.client.submit(job.spec) for job in wanted))
    story.rows += [Row(job, process) for job, process in zip(wanted, submitted, strict=True)]
    story.say(f"{len(wanted)} processes submitted at once: sensors, files, commands", "bold")
    await _until(story, lambda: story.done >= _KILL_SERVER_AFTER)
    await _kill_server(story)
    await _until(story, lambda: story.done == len(story.rows))
    story.say(f"all {len(wanted)} ended; nothing that the server had acknowledged was lost")


async def _kill_server(story: Story) -> None:
    left = len(story.rows) - story.done
    await story.stage.server.kill()
    story.say(f"kill -9: the server, with {left} processes unfinished", "bold red")
    await story.stage.start_server()
    story.say("the server is back with the same store; the agents go on by themselves")


async def _agent_dies(story: Story) -> str:
    """Who died."""
    job = jobs.survivor(SCENE)
    row = Row(job, await story.client.submit(job.spec))
    story.rows.append(row)
    await _until(story, lambda: story.has_begun(row), is_hasty=True)
    victim = story.agents.name(row.process)
    await story.stage.agents[victim].kill()
    story.say(f"kill -9: {victim}, in the middle of its work", "bold red")
    await _until(story, lambda: row.is_done)
    heir = story.agents.name(row.process)
    story.say(f"its lease of {jobs.SHORT_LEASE_S} s ended, so {heir} was given the work and did it")
    if heir == victim:
        raise CliError(Exit.FAILED, f"{victim} was killed and yet delivered")
    return victim


async def _start_again(story: Story, name: str) -> None:
    await story.stage.agents[name].start()
    process = await story.client.submit(SCENE.spec("echo", "there again", only=name))
    ended = await story.client.wait(process.processid, timeout_s=LIMIT_S)
    if ended.state != State.SUCCESS:
        raise CliError(Exit.FAILED, f"{name} did not come back")
    story.say(f"{name} was started again and is back")


async def _burst(story: Story) -> float:
    """Processes a second, from the first submit to the last result."""
    loop = asyncio.get_running_loop()
    counts = await story.client.colony_statistics(SCENE.colony)
    goal = counts.successfulprocesses + BURST
    begun_s = loop.time()
    specs = jobs.burst(SCENE, BURST)
    await asyncio.gather(*(story.client.submit(spec) for spec in specs))
    while counts.successfulprocesses < goal:
        await asyncio.sleep(LOOK_S / 4)
        counts = await story.client.colony_statistics(SCENE.colony)
    return BURST / (loop.time() - begun_s)


async def _until(story: Story, is_reached: Callable[[], bool], *, is_hasty: bool = False) -> None:
    while True:
        await story.look()
        if is_reached():
            return
        await asyncio.sleep(LOOK_S / 10 if is_hasty else LOOK_S)


def _judge(story: Story) -> None:
    """Raises `CliError` when anything is not as it should be."""
    wrong = [f"{row.job.title}: {why}" for row in story.rows if (why := _fault(row))]
    used = {story.agents.ways.get(story.agents.name(row.process)) for row in story.rows}
    if used != {"http", "mqtt"}:
        wrong.append(f"work went over {used} only")
    if wrong:
        raise CliError(Exit.FAILED, "not as it should be: " + " | ".join(wrong))


def _fault(row: Row) -> str:
    if why := row.job.check(row.process):
        return why
    if len(row.runs) < row.job.runs and not row.job.fails:
        return f"it was run {len(row.runs)} times, not {row.job.runs}"
    return ""


def _sum_up(story: Story, took_s: float, rate: float) -> None:
    ways = Counter(story.agents.ways[story.agents.name(row.process)] for row in story.rows)
    failed = sum(row.process.state == State.FAILED for row in story.rows)
    again = sum(len(row.runs) > 1 for row in story.rows)
    waits = [row.steps.delivered_s or 0.0 for row in story.rows if row.runs]
    console = story.console
    console.print()
    console.print(
        f"[bold green]{len(story.rows)} processes in {took_s:.1f} s[/]: "
        f"{ways['http']} over HTTP, {ways['mqtt']} over MQTT; "
        f"{len(story.rows) - failed} done, {failed} failed as they should, "
        f"{again} run more than once; the server and an agent killed, nothing lost."
    )
    console.print(
        f"A result is delivered within {statistics.median(waits) * 1000:.0f} ms (median). "
        f"Then {BURST} small processes at once: {rate:.0f} a second from submit to result, "
        "each signed, checked and fsynced."
    )
    console.print(
        "\nYour own colony: [bold]make up[/], and in another terminal "
        "[bold].venv/bin/colonist call sysinfo[/]"
    )


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
    return Console(width=width, highlight=False, emoji=False, soft_wrap=False)
