"""A server with a fault built in, to see that the campaign finds it.

    python -m tests.cluster.planted (flags of the server)

PLANTED says which: `forgetful` acknowledges now and then what it did not write; `blind` writes
whatever others have written meanwhile.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from colonist_server import main
from colonist_server.repo import keys
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import Guard, Op, Revision
from colonist_server.store.sqlite import SqliteStore

VARIABLE = "PLANTED"

_sqlite_commit = SqliteStore.commit
_etcd_commit = EtcdStore.commit
_numbers = itertools.count(1)


async def forgetful(
    self: SqliteStore, guards: Sequence[Guard], ops: Sequence[Op]
) -> Revision | None:
    is_submit = any(op[0].startswith(keys.BIRTH) for op in ops)
    if is_submit and next(_numbers) % 50 == 0:
        return self.revision
    return await _sqlite_commit(self, guards, ops)


async def blind(self: EtcdStore, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
    for _ in range(5):
        items = await self.get_many([guard.key for guard in guards])
        now = [
            Guard(guard.key, item.modified if item else 0)
            for guard, item in zip(guards, items, strict=True)
        ]
        revision = await _etcd_commit(self, now, ops)
        if revision is not None:
            return revision
    return None


def plant(name: str) -> None:
    if name == "forgetful":
        SqliteStore.commit = forgetful
    elif name == "blind":
        EtcdStore.commit = blind


if __name__ == "__main__":
    plant(os.environ[VARIABLE])
    main.main()
