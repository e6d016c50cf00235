"""`colonist agent` and `colonist bridge`: the programs at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.exits import CliError, Exit
from colonist_cli.shell import Shell

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the file; repeatable."),
]

agents = typer.Typer(help="Run work on this machine.", no_args_is_help=True)
bridges = typer.Typer(help="Bring devices on MQTT to the server.", no_args_is_help=True)


@command(agents, "run", kind=Kind.LOCAL)
def run_agent(
    shell: Shell,
    *,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A TOML file.")
    ] = None,
    server: Annotated[
        str,
        typer.Option(
            "--server", metavar="URL", help="A server (http, https) or a broker (mqtt, mqtts)."
        ),
    ] = "",
    colony: Annotated[str, typer.Option("--colony", metavar="NAME", help="The colony.")] = "",
    key: Annotated[
        str, typer.Option("--key", metavar="FILE", help="The executor's key; default: NAME's own.")
    ] = "",
    name: Annotated[str, typer.Option(help="The executor's name.")] = "",
    slots: Annotated[int | None, typer.Option(min=1, help="Processes at once.")] = None,
    settings: Set = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append a JSON line when a run starts or ends."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Show the settings and end.")] = False,
) -> None:
    """Pull processes and run them, until SIGTERM or Ctrl-C.

    Flags win over COLONIST_AGENT_* and COLONIES_* in the environment, and these over the file; what
    none of them says comes from the state folder.
    """
    from colonist_cli import agent

    flags = pairs(settings)
    given = {
        "url": server,
        "colony": colony,
        "name": name,
        "key_file": key,
        "slots": "" if slots is None else str(slots),
    }
    flags |= {key: value for key, value in given.items() if value}
    wanted = agent.configure(shell, config, flags)
    if check:
        shell.screen.line(wanted.describe())
        return
    agent.run_blocking(wanted, shell.environment, journal)


@command(bridges, "run", kind=Kind.LOCAL)
def run_bridge(
    shell: Shell,
    *,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A TOML file.")
    ] = None,
    name: Annotated[str, typer.Option(help="The bridge's name: a-z, 0-9, -.")] = "",
    server: Annotated[str, typer.Option("--server", metavar="URL", help="The server.")] = "",
    broker: Annotated[
        str,
        typer.Option("--broker", metavar="URL", help="The broker: mqtt:// or mqtts://host:port."),
    ] = "",
    username: Annotated[str, typer.Option(help="The account; default: gw-NAME.")] = "",
    password_file: Annotated[str, typer.Option(metavar="FILE", help="Its password.")] = "",
    settings: Set = None,
) -> None:
    """Forward requests between an MQTT broker and the server, until SIGTERM or Ctrl-C."""
    from colonist_cli import bridge

    flags = pairs(settings)
    if "password" in flags:
        raise CliError(Exit.USAGE, "others can see --set password=..: use --password-file FILE")
    given = {
        "name": name,
        "server_url": server,
        "broker_url": broker,
        "username": username,
        "password_file": password_file,
    }
    flags |= {key: value for key, value in given.items() if value}
    bridge.run_blocking(config, shell.environment, flags)


@command(bridges, "acl", kind=Kind.LOCAL)
def acl(
    shell: Shell,
    bridge: Annotated[list[str], typer.Option("--bridge", help="A bridge's name; repeatable.")],
    device: Annotated[
        list[str] | None, typer.Option("--device", help="A device's id, for --dynamic; repeatable.")
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="JSON of mosquitto's dynamic-security plugin.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="The topics' prefix.")] = "colonist/v1",
) -> None:
    """Write who may do what at a mosquitto broker, as an ACL file."""
    import os

    from colonist_bridge.acl import dynamic_security, dynamic_security_text, mosquitto_acl
    from colonist_protocol.topics import Topics

    if device and not dynamic:
        why = (
            "an ACL file names no device, it lets in each by its account: --device needs --dynamic"
        )
        raise CliError(Exit.USAGE, why)
    topics = Topics(prefix)
    if not dynamic:
        shell.screen.line(mosquitto_acl(topics, bridge).rstrip("\n"))
        return
    made = dynamic_security(
        topics, bridges=bridge, devices=device or (), passwords={}, salt=os.urandom
    )
    shell.screen.line(dynamic_security_text(made).rstrip("\n"))


def pairs(settings: list[str] | None) -> dict[str, str]:
    """`NAME=VALUE`s as a mapping. Raises `CliError`."""
    found: dict[str, str] = {}
    for text in settings or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CliError(Exit.USAGE, f"--set {text!r} is not NAME=VALUE")
        found[name.replace("-", "_")] = value
    return found
