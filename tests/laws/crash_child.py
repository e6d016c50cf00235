"""A process that commits as fast as it can and tells what was acknowledged, until it dies.

    python crash_child.py PATH SEED [LIMIT_BYTES]

Each commit writes two keys with equal values; its line on stdout follows the answer. With a limit,
no file may grow beyond it: the write fails as on a broken disk.
"""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from colonist_server.store.interface import Guard, Put
from colonist_server.store.sqlite import SqliteStore

CHAINS = 16


async def chain(store: SqliteStore, name: bytes) -> None:
    item = await store.get(name)
    revision = item.modified if item else 0
    number = int.from_bytes(item.value[:8], "big") if item else 0
    while True:
        number += 1
        value = number.to_bytes(8, "big") + bytes(number * 37 % 900)
        ops = [Put(name, value), Put(name + b"/twin", value), Put(b"%b/%d" % (name, number), b"")]
        answer = await store.commit([Guard(name, revision)], ops)
        assert answer is not None
        revision = answer
        os.write(1, b"%b %d %d\n" % (name, number, revision))


async def main() -> None:
    path, seed = Path(sys.argv[1]), sys.argv[2].encode()
    async with await SqliteStore.open(path) as store:
        os.write(1, b"open\n")
        if len(sys.argv) > 3:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
        async with asyncio.TaskGroup() as group:
            for number in range(CHAINS):
                group.create_task(chain(store, b"%b%d" % (seed, number)))


asyncio.run(main())
