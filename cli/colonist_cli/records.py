"""What `logs --follow` and `version` do beyond one call."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Final

from colonist_cli.follow import LAST_S, Follower, wait
from colonist_cli.output import Form, Screen, clean
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_protocol.errors import ColonistError
from colonist_protocol.log import Log

SERVER_S: Final = 2.0


async def follow_lines(
    screen: Screen, client: Client, colony: str, *, process: str, executor: str
) -> None:
    """Show lines as they come, until the process has ended."""
    follower = Follower(client, colony, process_id=process, executor=executor)
    if process:
        await wait(
            client, process, timeout_s=0, follower=follower, show=lambda line: _show(screen, line)
        )
        return
    while True:
        for line in await follower.look():
            _show(screen, line)
        await asyncio.sleep(LAST_S)


async def versions(server: str) -> dict[str, str]:
    """Ours, and the server's or why we do not know it."""
    found = {"colonist": version("colonist")}
    try:
        async with Client(HttpTransport(server), None, reply_s=SERVER_S) as client:
            answer = await client.version()
    except ColonistError as error:
        return found | {"server": f"unknown: {error}"}
    return found | {"server": f"{answer.buildversion} at {server}"}


def _show(screen: Screen, line: Log) -> None:
    if screen.form is Form.JSON:
        screen.json(line)
    else:
        screen.line(clean(line.message))
