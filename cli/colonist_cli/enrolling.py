"""Claims and enrolment from the command line: cards, hooks that approve, devices that join."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import secrets
import shlex
import shutil
import tomllib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from colonist_cli.exits import CliError, Exit
from colonist_cli.output import note
from colonist_client import memory, secret_file
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.retry import Backoff, Retry, advice_s, is_transient
from colonist_client.sealer import Pin
from colonist_client.transport import UnreachableError
from colonist_protocol.claims import CODE_BYTES, Card, Claim, Enrolled, make_code
from colonist_protocol.executor import Executor, ExecutorState
from colonist_protocol.identity import Identity

MACHINE_ID: Final = Path("/etc/machine-id")
HOOK_S: Final = 30.0
POLL_S: Final = 2.0
WAIT_S: Final = 2.0

_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})

_APPROVE: Final = 0
_REJECT: Final = 1
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def new_card(server: str, server_id: str, colony: str, host: str) -> Card:
    """A card with a new code. Raises `CliError` where no host can be told."""
    code = make_code(secrets.token_bytes(CODE_BYTES))
    return Card(host or _host_of(server), server_id, colony, code)


def _host_of(server: str) -> str:
    found = urlsplit(server)
    if found.hostname in _LOCAL:
        note(f"the card names {found.netloc}, this machine: devices elsewhere need --host")
    return found.netloc.rpartition("@")[2]


def address_of(card: Card) -> str:
    """Where a device finds the server: by TLS, but on the machine itself."""
    host = urlsplit(f"//{card.host}").hostname
    return f"{'http' if host in _LOCAL else 'https'}://{card.host}"


def one_of(claims: Sequence[Claim], given: str) -> Claim:
    """The claim whose id begins so. Raises `CliError`."""
    found = [claim for claim in claims if claim.claim.startswith(given)]
    if len(found) == 1:
        return found[0]
    many = "no claim" if not found else f"{len(found)} claims"
    raise CliError(Exit.NOT_FOUND, f"{many} with an id that begins with {given[:64]!r}")


def hardware() -> str:
    """What names this machine: a digest of its own id, where it has one, else its address."""
    try:
        text = MACHINE_ID.read_text().strip()
    except OSError:
        text = ""
    if not text:
        return f"{platform.node()[:64]}-{uuid.getnode():012x}"
    digest = hashlib.sha3_256(f"colonist hardware {text}".encode()).hexdigest()
    return f"machine-{digest[:32]}"


# -- approving


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command that decides: the executor comes as JSON on its standard input.

    Exit code 0 approves, 1 rejects; with any other it waits on, and so it does after 30 s. It gets
    the environment less our secrets.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def read(cls, text: str, environment: Mapping[str, str]) -> Hook:
        """Raises `CliError`."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise CliError(Exit.USAGE, f"--hook: {error}") from None
        if not words:
            raise CliError(Exit.USAGE, "--hook is empty")
        others = memory.for_others(environment)
        if shutil.which(words[0], path=os.pathsep.join(os.get_exec_path(others))) is None:
            raise CliError(Exit.USAGE, f"--hook {words[0]}: no such program, or it may not be run")
        return cls(command=words, environment=others)

    async def decide(self, executor: Enrolled) -> bool | None:
        """True: approve, False: reject, None: neither. Raises `CliError` where it cannot run."""
        try:
            child = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, env=self.environment
            )
        except OSError as error:
            raise CliError(Exit.USAGE, f"--hook {self.command[0]}: {error.strerror}") from None
        try:
            async with asyncio.timeout(HOOK_S):
                await child.communicate(msgspec.json.encode(executor) + b"\n")
        except TimeoutError:
            note(f"the hook took over {HOOK_S:.0f} s on {executor.executorname}")
            child.kill()
            await child.wait()
            return None
        return {_APPROVE: True, _REJECT: False}.get(child.returncode or 0)


Told = Callable[[str, str], None]


async def settle(client: Client, colony: str, hook: Hook, told: Told) -> None:
    """Let the hook decide once on all who wait; `told` of each name, and what became of it."""
    for executor in await client.enrolled(colony, state=ExecutorState.PENDING):
        verdict = await hook.decide(executor)
        if verdict is None:
            continue
        change = client.approve_executor if verdict else client.reject_executor
        try:
            await change(colony, executor.executorname)
        except ServerError as error:
            if error.status not in _GONE:
                raise
            note(f"{executor.executorname}: {error}")  # removed or settled meanwhile by others
            continue
        told(executor.executorname, "approved" if verdict else "rejected")


async def settle_on(client: Client, colony: str, hook: Hook, told: Told) -> None:
    """The same, again and again, until cancelled; a server that is away is waited for."""
    backoff = Backoff(uniform=secrets.SystemRandom().uniform, floor_s=POLL_S)
    failures = 0
    while True:
        pause_s = POLL_S
        try:
            await settle(client, colony, hook, told)
            failures = 0
        except (UnreachableError, ServerError) as error:
            if not is_transient(error):
                raise
            failures += 1
            pause_s = backoff.delay_s(failures, at_least_s=advice_s(error))
            note(f"{error}; trying again in {pause_s:.0f} s")
        await asyncio.sleep(pause_s)


# -- joining


async def join(
    card: Card, identity: Identity, *, server: str, hw: str, wait: bool = False
) -> Executor:
    """Enrol with the card; with `wait`, until somebody has approved or rejected."""
    pin = Pin(card.server)
    backoff = Backoff(uniform=secrets.SystemRandom().uniform, base_s=0.5, cap_s=10.0)
    retry = Retry(backoff=backoff, attempts=5)
    async with Client(HttpTransport(server), identity, pin=pin, retry=retry) as client:
        while True:
            executor = await client.enrol(card, hw)
            if not wait or executor.state != ExecutorState.PENDING:
                return executor
            await asyncio.sleep(WAIT_S)


def is_agent_of(path: Path, card: Card, *, server: str, key_file: Path) -> bool:
    """Whether the file says what `write_config` writes for that card, and its key is there."""
    return key_file.exists() and _says(path, _settings(path, card, server, key_file))


def write_config(
    path: Path, card: Card, executor: Executor, *, server: str, key_file: Path
) -> None:
    """What an agent needs to run as that executor, the pin among it. Raises `CliError`.

    A file that says the same, whatever else it says, stays as it is.
    """
    settings = _settings(path, card, server, key_file) | {"name": executor.executorname}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = "\n".join(["# Written by `colonist enroll join`.", *lines, ""])
    try:
        secret_file.write(path, text.encode())
    except FileExistsError:
        if not _says(path, settings):
            raise CliError(Exit.CONFLICT, f"{path} is there already: not overwritten") from None
        note(f"{path} is there already, and says so")
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None


def _settings(path: Path, card: Card, server: str, key_file: Path) -> dict[str, str]:
    return {
        "url": server,
        "colony": card.colony,
        "key_file": str(key_file.absolute()),
        "server_id": card.server,
        "server_id_file": str(path.with_name(f"{path.stem}.server-id").absolute()),
    }


def _says(path: Path, settings: Mapping[str, str]) -> bool:
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return all(found.get(name) == value for name, value in settings.items())
