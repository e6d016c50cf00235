"""`colonist key`: private keys in files."""

from __future__ import annotations

from typing import Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.output import note
from colonist_cli.shell import Shell

Name = Annotated[
    str, typer.Argument(metavar="NAME|PATH", help="A name of the state folder, or a path.")
]
PassphraseFile = Annotated[
    str,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="The new passphrase is in this file, mode 0600; default: it is asked for.",
    ),
]

keys = typer.Typer(help="Private keys in files of mode 0600.", no_args_is_help=True)


@command(keys, "new", kind=Kind.LOCAL)
def new_key(
    shell: Shell,
    name: Name,
    *,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Put it under a passphrase.")] = False,
    passphrase_file: PassphraseFile = "",
) -> None:
    """Make a private key in a new file; never overwrites one. Prints the id.

    Where COLONIST_PASSPHRASE_FILE names a passphrase, the key is put under it.
    """
    from colonist_cli.keys import make, new_passphrase, path_of

    path, custody = path_of(shell.place, name), shell.place.custody
    passphrase = custody.configured()
    if encrypt or passphrase_file:
        passphrase = new_passphrase(custody, path, passphrase_file, may_be_known=True)
    shell.screen.line(make(path, passphrase).id)
    note(f"private key in {path}{'' if passphrase is None else ', under a passphrase'}")


@command(keys, "show", kind=Kind.LOCAL)
def show_key(
    shell: Shell,
    name: Name,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print the private key itself, not the id.")
    ] = False,
) -> None:
    """Print the id of a key. That needs no passphrase."""
    from colonist_cli.keys import path_of
    from colonist_client import keyfile

    path, custody = path_of(shell.place, name), shell.place.custody
    shell.screen.line(
        keyfile.read(path, custody).reveal() if reveal else keyfile.id_of(path, custody)
    )


@command(keys, "encrypt", kind=Kind.LOCAL)
def encrypt_key(shell: Shell, name: Name, *, passphrase_file: PassphraseFile = "") -> None:
    """Put a key under a passphrase, or under another one. Prints the id.

    The one that it is under comes from COLONIST_PASSPHRASE_FILE, else it is asked for.
    """
    from colonist_cli.keys import encrypt, path_of

    path = path_of(shell.place, name)
    shell.screen.line(encrypt(path, shell.place.custody, passphrase_file).id)
    note(f"{path} is under the new passphrase; copies made before are not")


@command(keys, "decrypt", kind=Kind.LOCAL)
def decrypt_key(shell: Shell, name: Name) -> None:
    """Take the passphrase off a key; its file stays 0600. Prints the id."""
    from colonist_cli.keys import decrypt, path_of

    path = path_of(shell.place, name)
    shell.screen.line(decrypt(path, shell.place.custody).id)
    note(f"{path} is under no passphrase any more")
