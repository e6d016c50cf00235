"""A command that writes faster than it is read."""

from __future__ import annotations

import asyncio
import sys

import pytest

from colonist_agent import command as commands
from colonist_agent.outcome import FailError

LIMIT = 10_000


async def test_program_that_filled_the_reader_before_it_was_killed_has_ended() -> None:
    """A reader that is full reads its pipe no more, and so never sees that it is closed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "while True: print('x' * 1000)",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    spec = commands.CommandSpec(argv=[sys.executable], max_output_bytes=LIMIT, timeout_s=5)
    assert process.stdout is not None
    while not process.stdout._paused:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    with pytest.raises(FailError, match=f"wrote more than {LIMIT} bytes"):
        await commands.Command("c", spec, environment={})._attend(process)  # pyright: ignore[reportPrivateUsage]
    assert process.returncode == -9
