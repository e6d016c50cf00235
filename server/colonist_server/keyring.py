"""The key files of a server: made at its first start, the same at every node of a cluster.

server-owner.key    who founds colonies; made for a new store where nobody says whose id that is
server.key          the server's own: what its replies are signed with
server.key.next     one that will follow: its name and its tokens are good already
server.key.N        those before, the highest number the newest: for requests that still name them
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

from colonist_client import keyfile, secret_file
from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity
from colonist_protocol.tokens import ServerKeys

OWNER_KEY: Final = "server-owner.key"
SERVER_KEY: Final = "server.key"
NEXT_KEY: Final = "server.key.next"

_FORMER: Final = re.compile(r"server\.key\.([1-9][0-9]{0,5})")

log = logging.getLogger(__name__)


class Keyring:
    """A folder of key files. Raises `InvalidValueError`, `OSError`."""

    def __init__(self, folder: Path, custody: Custody) -> None:
        self._folder = folder
        self._custody = custody

    def owner_id(self, stored: str | None = None) -> str:
        """The id of the server owner whose key is here. No passphrase is asked for.

        `stored`: whom the store names, "" where it names nobody; None: it is new, and so is the
        owner, whose key is made. Raises `InvalidValueError` where nobody says who it was.
        """
        path = self._folder / OWNER_KEY
        if os.path.lexists(path):
            return keyfile.id_of(path, self._custody)
        if stored == "":
            raise InvalidValueError(
                "the store was at work before, and nobody says who its server owner is: set "
                f"COLONIES_SERVER_ID to the owner's id, or put the owner's key back at {path}"
            )
        if stored is not None:
            return stored
        return self._made(path, "server owner").id

    def server_keys(self) -> ServerKeys:
        """The server's key, with those before it and the one to come."""
        path, coming = self._folder / SERVER_KEY, self._folder / NEXT_KEY
        current = self._read(path) if os.path.lexists(path) else self._made(path, "server")
        return ServerKeys(
            current,
            [self._read(each) for each in self._former()],
            coming=self._read(coming) if os.path.lexists(coming) else None,
        )

    def prepare(self) -> str:
        """Make the key that will follow, unless it is there; its id.

        Raises `InvalidValueError` where there is no key that it could follow.
        """
        self._check_there()
        path = self._folder / NEXT_KEY
        if not os.path.lexists(path):
            self._made(path, "server, to follow the one of now")
        return keyfile.id_of(path, self._custody)

    def change(self) -> str:
        """Put the key that was made ready in the place of the one of now; its id.

        The one of now is kept first, under the next number. Each step is atomic and may be
        repeated. Raises `InvalidValueError` where none was made ready.
        """
        self._check_there()
        path, coming = self._folder / SERVER_KEY, self._folder / NEXT_KEY
        if not os.path.lexists(coming):
            raise InvalidValueError(f"{coming} is not there: make it ready at all nodes first")
        id = keyfile.id_of(coming, self._custody)
        former = self._former()
        if not former or keyfile.id_of(former[0], self._custody) != self._id(path):
            last = int(former[0].suffix[1:]) if former else 0
            kept = self._folder / f"{SERVER_KEY}.{last + 1}"
            secret_file.write(kept, self._custody.read(path, "key file"))
        coming.replace(path)
        secret_file.settle(self._folder)
        return id

    def _id(self, path: Path) -> str:
        return keyfile.id_of(path, self._custody)

    def _check_there(self) -> None:
        if not os.path.lexists(self._folder / SERVER_KEY):
            raise InvalidValueError(f"{self._folder} holds no {SERVER_KEY}: is this the folder?")

    def _former(self) -> list[Path]:
        """Newest first."""
        found = {
            int(number[1]): path
            for path in self._folder.iterdir()
            if (number := _FORMER.fullmatch(path.name))
        }
        return [found[number] for number in sorted(found, reverse=True)]

    def _read(self, path: Path) -> Identity:
        return keyfile.read(path, self._custody)

    def _made(self, path: Path, whose: str) -> Identity:
        """Made once: of two nodes that start at once on one folder, one reads the other's."""
        secret_file.make_folder(self._folder)
        identity = Identity.from_entropy(os.urandom(32))
        try:
            keyfile.write(path, identity, self._custody.configured())
        except FileExistsError:
            return self._read(path)
        log.warning("made the key of the %s: id=%s file=%s", whose, identity.id, path)
        return identity
