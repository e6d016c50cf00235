"""What every command is given: the settings, a client that signs with the right key, the screen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from colonist_cli.exits import CliError, Exit, in_line
from colonist_cli.output import Form, Screen
from colonist_cli.place import Place, find_place
from colonist_cli.settings import SERVER_ID, Flags, Role, Settings, Signer

if TYPE_CHECKING:
    from colonist_client.client import Client
    from colonist_client.failure import ServerError
    from colonist_client.retry import Retry
    from colonist_client.sealer import NotGenuineError
    from colonist_client.subscriptions import Subscriber
    from colonist_client.transport import Transport

RECEIPTS: Final = "COLONIST_RECEIPTS"
"""The folder in which replies that name an event are kept."""


class Shell:
    """One run of one command."""

    def __init__(
        self, environment: Mapping[str, str], flags: Flags | None = None, form: Form = Form.TABLE
    ) -> None:
        self.environment = environment
        self.flags = flags or Flags()
        self.screen = Screen(form)
        self.place: Place = find_place(self.flags.home, environment)

    @cached_property
    def settings(self) -> Settings:
        """Flags > environment > the state folder > default."""
        return Settings(self.flags, self.environment, self.place)

    @asynccontextmanager
    async def client(self, role: Role = Role.MEMBER) -> AsyncGenerator[Client]:
        """A client of the server, signing in this role. A refusal says which key was used."""
        from colonist_client.client import Client
        from colonist_client.failure import ServerError
        from colonist_client.http import HttpTransport
        from colonist_client.receipts import ReceiptKeeper
        from colonist_client.sealer import NotGenuineError

        signer = self.settings.signer(role)
        transport: Transport = HttpTransport(self.settings.server)
        if folder := self.environment.get(RECEIPTS):
            transport = ReceiptKeeper(transport, Path(folder))
        pin = self.settings.pin()
        retry = patience() if pin is not None else None
        async with Client(transport, signer.identity, pin=pin, retry=retry) as client:
            try:
                yield client
            except ServerError as error:
                raise told_of(error, signer, is_pinned=pin is not None) from error
            except NotGenuineError as error:
                raise doubted(error, signer, self.settings.pin_origin) from error

    def subscriber(self) -> Subscriber:
        """Follows processes with a member's key."""
        from colonist_client.subscriptions import Subscriber

        settings = self.settings
        identity = settings.signer(Role.MEMBER).identity
        return Subscriber(settings.server, identity, pin=settings.pin())


def patience() -> Retry:
    """How a command repeats what is sealed: thrice, within some seconds."""
    import secrets

    from colonist_client.retry import Backoff, Retry

    return Retry(
        backoff=Backoff(uniform=secrets.SystemRandom().uniform, base_s=0.3, cap_s=2.0), attempts=3
    )


def _named(signer: Signer) -> str:
    return f"{signer.identity.id[:12]}... from {signer.origin}"


def doubted(error: NotGenuineError, signer: Signer, pin_origin: str) -> CliError:
    """What to say where nobody proved to be the pinned server."""
    from colonist_protocol.errors import AccessError

    remedy = f"is another server meant? the pin is {pin_origin}"
    if error.said_code == AccessError.code:
        remedy += ". A key that the server does not know is refused so, too: is it the right one?"
    told = f"{error} (signed with the key {_named(signer)}); {remedy}"
    return CliError(Exit.UNREACHABLE, in_line(told))


def told_of(error: ServerError, signer: Signer, *, is_pinned: bool) -> CliError:
    """What to say of a refusal: with which key it was asked, and a remedy where there is one."""
    from http import HTTPStatus

    from colonist_cli.exits import of_status
    from colonist_protocol.errors import PlainRefusedError

    if error.status != HTTPStatus.FORBIDDEN:
        return CliError(of_status(error.status), in_line(str(error)))
    told = f"refused: {in_line(str(error))} (signed with the key {_named(signer)})"
    if error.code == PlainRefusedError.code and not is_pinned:
        told += f"; pin the server: set {SERVER_ID} to its id, which its operator tells"
    return CliError(Exit.REFUSED, told)
