"""`colonist bridge run`: a bridge in the foreground."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from colonist_bridge.config import BridgeConfig, load
from colonist_bridge.main import run
from colonist_cli.loop import run_until_signal
from colonist_client import logs


def run_blocking(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str]
) -> None:
    """Run until a signal. Raises `InvalidValueError`."""
    config = load(file, environment, flags)
    logs.begin(logging.INFO, "%(asctime)s %(levelname)s %(message)s")
    run_until_signal(lambda stop: _run(config, stop))


async def _run(config: BridgeConfig, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(config))
        await stop.wait()
        task.cancel()
