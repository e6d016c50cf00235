"""How a program gets at its secrets: files, systemd's credentials, the passphrase of key files.

A setting that names a file of a secret may give a bare name: it is looked for among systemd's
credentials first, then in the working directory. A passphrase comes from the file that
`COLONIST_PASSPHRASE_FILE` names, else from the credential `colonist-passphrase`, else somebody is
asked at the terminal. It is no argument and stands in no variable: others can read both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from colonist_client import secret_file, terminal
from colonist_protocol.errors import InvalidValueError

CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
PASSPHRASE_VARIABLE: Final = "COLONIST_PASSPHRASE_FILE"  # noqa: S105 - a name
CREDENTIAL: Final = "colonist-passphrase"
MAX_PASSPHRASE_BYTES: Final = 1024
MIN_CHARS: Final = 8
"""Of a new passphrase; one that a key is under already may be shorter."""

_INHERITED: Final = "COLONIST_PASSPHRASE"


class Custody:
    """The secrets of one program, by its environment. Keeps none of them."""

    __slots__ = ("_ask", "_credentials", "_environment")

    def __init__(
        self, environment: Mapping[str, str], ask: Callable[[str], str] = terminal.ask
    ) -> None:
        """`ask` shows a prompt and reads what is typed, unseen."""
        self._environment = environment
        self._ask = ask
        folder = environment.get(CREDENTIALS_VARIABLE, "")
        self._credentials = Path(folder) if folder else None

    def find(self, name: str) -> Path:
        """The file that a setting names."""
        if self._credentials is not None and "/" not in name:
            credential = self._credentials / name
            if os.path.lexists(credential):
                return credential
        return Path(name)

    def read(self, path: Path, what: str) -> bytes:
        """The content of a secret file. Raises `InvalidValueError`, never with the content."""
        return secret_file.read(path, what, is_credential=self._is_credential(path))

    def check(self, path: Path, what: str) -> None:
        """Refuse a secret file as `read` does; somebody else reads it."""
        secret_file.check(path, what, is_credential=self._is_credential(path))

    def password(self, name: str, what: str) -> str:
        """A password: the text of the file that a setting names, less the end of its line.

        Raises `InvalidValueError`, also where it is empty.
        """
        path = self.find(name)
        try:
            text = self.read(path, what).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise InvalidValueError(f"{what} {path} holds no text in UTF-8") from None
        if not text or "\0" in text:
            raise InvalidValueError(f"{what} {path} is {'no text' if text else 'empty'}")
        return text

    def secret(self, name: str, what: str) -> str:
        """The secret in a variable, or in the file that `NAME_FILE` names; "" where neither is set.

        Raises `InvalidValueError`, also where both are.
        """
        text, file = (self._environment.get(each, "") for each in (name, f"{name}_FILE"))
        if text and file:
            raise InvalidValueError(f"both {name} and {name}_FILE are set: unset one of them")
        return self.password(file, what) if file else text

    def configured(self) -> bytes | None:
        """The passphrase that was given beforehand; None: somebody is to be asked.

        Raises `InvalidValueError`.
        """
        if self._environment.get(_INHERITED):
            raise InvalidValueError(
                f"{_INHERITED} is set: a variable goes to every program that is started. Put the "
                f"passphrase into a file of mode 0600, and its name into {PASSPHRASE_VARIABLE}"
            )
        if name := self._environment.get(PASSPHRASE_VARIABLE, ""):
            return bounded(self.password(name, PASSPHRASE_VARIABLE))
        if self._credentials is not None and os.path.lexists(self._credentials / CREDENTIAL):
            return bounded(self.password(CREDENTIAL, "credential"))
        return None

    def passphrase(self, path: Path) -> bytes:
        """The passphrase of a key file, asked for where it was not given. Never empty.

        Raises `InvalidValueError`.
        """
        given = self.configured()
        return bounded(self._ask(f"Passphrase of {path}: ")) if given is None else given

    def new_passphrase(self, path: Path) -> bytes:
        """A passphrase for a key file, asked for twice. Raises `InvalidValueError`."""
        wanted = worthy(self._ask(f"New passphrase of {path}: "))
        if self._ask("The same again: ").encode() != wanted:
            raise InvalidValueError("the passphrase was not the same the second time")
        return wanted

    def answering(self, passphrase: bytes | None) -> Custody:
        """The same, where this is what somebody who is asked would say; None: that is unknown."""
        if passphrase is None:
            return self
        return Custody(self._environment, lambda _: passphrase.decode())

    def _is_credential(self, path: Path) -> bool:
        return self._credentials is not None and path.parent == self._credentials


def worthy(text: str) -> bytes:
    """A passphrase that a key may be put under. Raises `InvalidValueError`."""
    if len(text) < MIN_CHARS:
        raise InvalidValueError(f"a passphrase has {MIN_CHARS} characters or more")
    return bounded(text)


def bounded(text: str) -> bytes:
    """A passphrase as bytes. Raises `InvalidValueError` where it is empty or too long."""
    found = text.encode()
    if not 0 < len(found) <= MAX_PASSPHRASE_BYTES:
        raise InvalidValueError(f"a passphrase is 1 to {MAX_PASSPHRASE_BYTES} bytes of text")
    return found
