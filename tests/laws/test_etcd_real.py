"""What only a real etcd can show: how it lets in, fails over, stands still, fills up, forgets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from aetcd import rpc

from colonist_server.store.etcd import address, client
from colonist_server.store.etcd.address import Address, Files
from colonist_server.store.etcd.reads import RANGE_BYTES
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.etcd.wire import Method
from colonist_server.store.interface import (
    MAX_COMMIT_BYTES,
    MAX_KEY_BYTES,
    MAX_OPS,
    MAX_VALUE_BYTES,
    CompactedError,
    DeleteRange,
    Guard,
    Op,
    Put,
    ReadOnlyError,
    StoreError,
    TooBigError,
    UnavailableError,
)
from colonist_server.store.laws import check
from tests.support.etcd import USER, Cluster, Options, cluster, free_ports

DEADLINE_S = 30.0
PREFIX = "t"


def at(etcd: Cluster) -> Address:
    found = address.parse(f"etcd://{','.join(etcd.endpoints)}/{PREFIX}")
    if etcd.tls is None:
        return found
    files = Files(etcd.tls.authority, etcd.tls.client, etcd.tls.client_key)
    return replace(found, is_tls=True, files=files)


@contextlib.asynccontextmanager
async def one(options: Options | None = None) -> AsyncGenerator[tuple[Cluster, EtcdStore], None]:
    async with cluster(1, options) as etcd, await EtcdStore.open(at(etcd)) as store:
        yield etcd, store


async def put(store: EtcdStore, key: bytes, value: bytes = b"") -> int:
    revision = await store.commit([Guard(key, 0)], [Put(key, value)])
    assert revision is not None
    return revision


async def refused(wanted: Address) -> str:
    with pytest.raises(StoreError) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await EtcdStore.open(wanted)
    return str(caught.value)


# -- being let in


async def test_nobody_there_is_said_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonist_server.store.etcd.store.OPEN_S", 1.0)
    (port,) = free_ports(1)
    told = await refused(address.parse(f"etcd://127.0.0.1:{port}/{PREFIX}"))
    assert f"etcd://127.0.0.1:{port}/{PREFIX}" in told
    assert "refused" in told.lower() or "failed to connect" in told.lower()


async def test_a_dead_endpoint_among_others_does_not_matter() -> None:
    (port,) = free_ports(1)
    async with cluster() as etcd:
        wanted = address.parse(f"etcd://127.0.0.1:{port},{etcd.endpoints[0]}/{PREFIX}")
        async with await EtcdStore.open(wanted) as store:
            await put(store, b"a")
            assert store.fault == ""


async def test_users_are_let_in_by_password_and_only_at_their_prefix() -> None:
    async with cluster(1, Options(users=f"{PREFIX}/")) as etcd:
        user = replace(at(etcd), user=USER[0], password=USER[1])
        async with await EtcdStore.open(user) as store:
            await put(store, b"a")
            assert [page.items for page in [page async for page in store.snapshot()]]
            lease = await store.lease(5)
            assert await store.keep_alive(lease)
            await store.compact(store.revision)
        assert "refuses this user or password" in await refused(replace(user, password="x"))  # noqa: S106
        assert "refuses this user or password" in await refused(replace(user, user="nobody"))
        assert "add user=" in await refused(at(etcd))
        told = await refused(replace(user, prefix="other"))
        assert "other/" in told
        assert "grant a role" in told
        assert USER[1] not in told


async def test_a_user_where_none_is_asked_for_is_said() -> None:
    async with cluster() as etcd:
        assert "leave out user=" in await refused(replace(at(etcd), user="u", password="p"))  # noqa: S106


async def test_a_token_that_etcd_forgot_is_fetched_anew() -> None:
    async with cluster(1, Options(users=f"{PREFIX}/")) as etcd:
        user = replace(at(etcd), user=USER[0], password=USER[1])
        async with await EtcdStore.open(user) as store:
            await put(store, b"a")
            await etcd.members[0].restart()  # tokens live in its memory
            await put(store, b"b")
            assert await store.get(b"b")


async def test_certificates_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonist_server.store.etcd.store.OPEN_S", 1.5)
    async with cluster(1, Options(tls=True)) as etcd:
        assert etcd.tls is not None
        async with await EtcdStore.open(at(etcd)) as store:
            await put(store, b"a")
        good = at(etcd)
        files = good.files
        other = replace(good, files=replace(files, ca=etcd.tls.other_authority))
        assert "not signed by ca=" in await refused(other)
        stranger = Files(files.ca, etcd.tls.stranger, etcd.tls.stranger_key)
        assert "check ca=, cert= and key=" in await refused(replace(good, files=stranger))
        assert "cert=" in await refused(replace(good, files=Files(files.ca)))
        assert "add ca=" in await refused(replace(good, files=Files(), is_tls=False))


async def test_a_file_that_is_no_certificate_is_said() -> None:
    wanted = address.parse(f"etcd://127.0.0.1:1/p?ca={__file__}")
    assert "PEM" in await refused(wanted)
    wanted = address.parse("etcd://127.0.0.1:1/p?ca=/nowhere")
    assert "cannot be read" in await refused(wanted)


# -- faults


async def test_another_member_takes_over_and_no_event_is_missed() -> None:
    async with cluster(3) as etcd, await EtcdStore.open(at(etcd)) as store:
        start = store.revision
        wanted = {b"%d" % number for number in range(60)}
        for number in range(60):
            if number == 20:
                etcd.members[0].kill()
            if number == 40:
                await etcd.members[0].restart()
                etcd.members[1].kill()
            await put(store, b"%d" % number)
        seen: set[bytes] = set()
        async with (
            asyncio.timeout(DEADLINE_S),
            contextlib.aclosing(store.watch(start)) as events,
        ):
            async for event in events:
                seen.update(change.key for change in event.changes)
                if seen == wanted:
                    break


async def test_a_member_that_stands_still_is_left_and_the_watch_goes_on_elsewhere() -> None:
    async with cluster(3) as etcd, await EtcdStore.open(at(etcd)) as store:
        await put(store, b"a")
        used = next(m for m in etcd.members if m.endpoint == store._client.endpoint)
        used.pause()
        try:
            async with asyncio.timeout(DEADLINE_S):
                revision = await put(store, b"b")
                assert await store._watch.reach(revision, DEADLINE_S)
            assert store._client.endpoint != used.endpoint
        finally:
            used.resume()


async def test_what_is_not_answered_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 1: pause etcd, time out, resume."""
    monkeypatch.setattr("colonist_server.store.etcd.batches.GIVE_UP_S", 1.0)
    monkeypatch.setattr(client, "CALL_S", 0.5)
    async with one() as (etcd, store):
        first = await put(store, b"a")
        assert await store._watch.reach(first, DEADLINE_S)  # else its event is caught in the pause
        etcd.members[0].pause()
        with pytest.raises(UnavailableError, match="is not known"):
            await store.commit([Guard(b"a", first)], [Put(b"a", b"1")])
        assert store.fault
        etcd.members[0].resume()
        # Done or not, exactly one of two that guard the same is done.
        second = await store.commit([Guard(b"a", first)], [Put(b"a", b"2")])
        item = await store.get(b"a")
        assert item is not None
        assert item.value == (b"1" if second is None else b"2")
        assert store.fault == ""


async def test_a_commit_that_waits_out_a_stand_still_is_done_once() -> None:
    async with one() as (etcd, store):
        etcd.members[0].pause()
        waiting = [asyncio.create_task(put(store, b"%d" % number)) for number in range(20)]
        await asyncio.sleep(
            client.CALL_S + 0.5
        )  # the first try is given up, and arrives all the same
        etcd.members[0].resume()
        async with asyncio.timeout(DEADLINE_S):
            revisions = await asyncio.gather(*waiting)
        for number, revision in enumerate(revisions):
            item = await store.get(b"%d" % number)
            assert item is not None
            assert (item.created, item.modified) == (revision, revision)


async def test_a_full_etcd_refuses_writes_and_serves_reads_until_there_is_room() -> None:
    async with one(Options(quota_bytes=16_777_216)) as (etcd, store):
        value = bytes(1_000_000)
        number = 0
        while not store.fault:
            number += 1
            with contextlib.suppress(ReadOnlyError):
                await put(store, b"%d" % number, value)
        with pytest.raises(ReadOnlyError, match="NOSPACE"):
            await put(store, b"more", value)
        assert "NOSPACE" in store.fault
        assert (await store.status()).alarms == ["NOSPACE"]
        assert await store.get(b"1")
        assert await store.get(b"%d" % number) is None
        with etcd.channel() as channel:  # others on it move the revision without our watch
            gone = rpc.DeleteRangeRequest(key=b"foreign")
            rpc.KVStub(channel).DeleteRange(gone)
        newest = await store.newest()
        assert await store._watch.reach(newest, 1.0)
        _make_room(etcd, store.revision)
        await put(store, b"again")
        assert store.fault == ""


def _make_room(etcd: Cluster, revision: int) -> None:
    """As docs/howto/high-availability.md has it: delete, compact, defragment, disarm."""
    with etcd.channel() as channel:
        kv, keeping = rpc.KVStub(channel), rpc.MaintenanceStub(channel)
        gone = rpc.DeleteRangeRequest(key=b"t//k", range_end=b"t//l")
        newest = kv.DeleteRange(gone).header.revision
        kv.Compact(rpc.CompactionRequest(revision=newest, physical=True))
        keeping.Defragment(rpc.DefragmentRequest())
        for alarm in keeping.Alarm(rpc.AlarmRequest(action=rpc.AlarmRequest.GET)).alarms:
            off = rpc.AlarmRequest(
                action=rpc.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
            )
            keeping.Alarm(off)


async def test_a_watch_that_lost_history_says_so() -> None:
    async with one() as (etcd, store):
        start = await put(store, b"a")
        member = etcd.members[0]
        store._watch._task.cancel()  # as a node that was asleep
        for number in range(5):
            await put(store, b"n%d" % number)
        await store.compact(store.revision)
        store._watch._task = asyncio.create_task(store._watch._run())
        with pytest.raises(CompactedError):
            await asyncio.wait_for(_follow(store, start), DEADLINE_S)
        revision = await put(store, b"b")
        assert await store._watch.reach(revision, DEADLINE_S)
        assert member.is_running


async def _follow(store: EtcdStore, start: int) -> None:
    async for _ in store.watch(start):
        pass


async def test_compaction_spares_what_a_backup_reads() -> None:
    async with one() as (_, store):
        for number in range(2_500):
            await put(store, b"%04d" % number)
        pages = store.snapshot()
        first = await anext(pages)
        await store.commit([Guard(b"2400", 0)], [Put(b"2400", b"")])
        for number in range(10):
            await put(store, b"new%d" % number)
        await store.compact(store.revision)
        rest = [page async for page in pages]
        items = [item for page in (first, *rest) for item in page.items]
        assert [item.key for item in items] == [b"%04d" % number for number in range(2_500)]
        assert {page.revision for page in (first, *rest)} == {first.revision}


async def test_fences_of_the_gone_are_swept() -> None:
    async with cluster() as etcd, await EtcdStore.open(at(etcd)) as store:
        other = await EtcdStore.open(at(etcd))
        await put(other, b"a")
        other._batches.stop()
        await other._watch.close()  # it dies without a farewell
        await other._client.close()
        await put(store, b"b")
        await store.compact(store.revision + 1)
        with etcd.channel() as channel:
            found = rpc.KVStub(channel).Range(rpc.RangeRequest(key=b"t//f", range_end=b"t//g"))
        assert [kv.key for kv in found.kvs] == []
        await put(store, b"c")  # its own fence was swept too: it finds that and goes on


async def test_two_nodes_see_each_other() -> None:
    async with one() as (etcd, a), await EtcdStore.open(at(etcd)) as b:
        for number in range(50):
            writer, reader = (a, b) if number % 2 else (b, a)
            revision = await put(writer, b"%d" % number)
            newest = await reader.newest()
            assert newest >= revision
            assert await reader._watch.reach(newest, DEADLINE_S)


async def test_others_on_the_same_etcd_do_not_hold_up_a_barrier() -> None:
    async with one() as (etcd, store):
        with etcd.channel() as channel:
            kv = rpc.KVStub(channel)
            for _ in range(5):
                kv.Put(rpc.PutRequest(key=b"foreign", value=b""))
                newest = await store.newest()
                assert await store._watch.reach(newest, 1.0)


@pytest.mark.parametrize("part", ["kit", "field", "hamburg"])
async def test_stores_below_the_prefix_of_another_are_their_own(part: str) -> None:
    async with one() as (etcd, upper):
        below = replace(at(etcd), prefix=f"{PREFIX}/{part}")
        async with await EtcdStore.open(below) as lower:
            await put(lower, b"a")
            revision = await put(upper, b"b")
            await upper.compact(await put(upper, b"c"))
            assert await lower.get(b"a")
            assert [item.key for item in (await upper.range(b"")).items] == [b"b", b"c"]
            with pytest.raises(CompactedError):  # nothing of another holds compaction up
                await upper._reads._read([b"b"], revision)


def largest(fill: bytes) -> tuple[list[Guard], list[Op]]:
    """The most that the laws admit, of puts, or of deletions of ranges but for two puts."""

    def keys(head: bytes, count: int) -> list[bytes]:
        return [head + b"%0*d" % (MAX_KEY_BYTES - 1, number) for number in range(count)]

    guards = [Guard(key, 0) for key in keys(b"g", MAX_OPS)]
    room = MAX_COMMIT_BYTES - MAX_KEY_BYTES * (MAX_OPS + 2) - MAX_VALUE_BYTES
    ops: list[Op] = [Put(keys(b"v", 1)[0], bytes(MAX_VALUE_BYTES))]
    for key in keys(fill, MAX_OPS - 2):
        ops.append(Put(key, b"") if fill == b"p" else DeleteRange(key))
        room -= MAX_KEY_BYTES * (1 if fill == b"p" else 2)
    return guards, [*ops, Put(guards[0].key, bytes(room))]


@pytest.mark.parametrize("fill", [b"p", b"d"])
async def test_etcd_takes_the_largest_commit_under_the_longest_prefix(fill: bytes) -> None:
    async with one() as (etcd, _):
        longest = replace(at(etcd), prefix="p" * address.MAX_PREFIX)
        async with await EtcdStore.open(longest) as store:
            guards, ops = largest(fill)
            assert await store.commit(guards, ops)
            last = ops[-1]
            assert isinstance(last, Put)
            with pytest.raises(TooBigError):
                check(guards, [*ops[:-1], Put(last.key, last.value + b"x")])


async def test_a_range_of_large_values_comes_in_pages_that_fit() -> None:
    async with one() as (_, store):
        count, value = 150, bytes(1_000_000)
        for number in range(count):
            await put(store, b"b%03d" % number, value)
        asked: list[bytes] = []
        ask = store._client.ask

        async def noted(method: Method, request: bytes, give_up_s: float = 10.0) -> object:
            response = await ask(method, request, give_up_s)
            assert len(response.kvs) * len(value) <= 2 * RANGE_BYTES or not asked
            asked.append(request)
            return response

        store._client.ask = noted  # type: ignore[method-assign]
        found = await store.range(b"b")
        assert len(found.items) == count
        assert all(item.value == value for item in found.items)
        assert len(asked) > 1


async def test_a_watch_whose_token_ran_out_goes_on() -> None:
    async with cluster(1, Options(users=f"{PREFIX}/")) as etcd:
        user = replace(at(etcd), user=USER[0], password=USER[1])
        async with await EtcdStore.open(user) as store, await EtcdStore.open(user) as other:
            await put(store, b"a")
            store._client._token = "forgotten.1"  # noqa: S105 - none
            assert store._watch._stream is not None
            store._watch._stream.cancel()
            revision = await put(other, b"b")
            assert await store._watch.reach(revision, DEADLINE_S)


async def test_a_watch_that_lost_history_in_an_outage_goes_on_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one() as (_, store):
        await put(store, b"a")
        await put(store, b"b")
        tried = asyncio.Event()

        async def fail() -> int:
            tried.set()
            raise UnavailableError("no answer")

        with monkeypatch.context() as outage:
            outage.setattr(store._reads, "revision", fail)
            await store.compact(store.revision)
            store._watch._reached = 1
            assert store._watch._stream is not None
            store._watch._stream.cancel()
            async with asyncio.timeout(DEADLINE_S):
                await tried.wait()
        assert await store._watch.reach(await put(store, b"c"), DEADLINE_S)


async def test_a_lease_is_renewed_at_another_member_when_one_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "CALL_S", 0.5)
    async with cluster(3) as etcd, await EtcdStore.open(at(etcd)) as store:
        lease = await store.lease(20)
        used = next(m for m in etcd.members if m.endpoint == store._client.endpoint)
        used.pause()
        try:
            with pytest.raises(UnavailableError, match="not renewed in time"):
                await store.keep_alive(lease)
            async with asyncio.timeout(DEADLINE_S):
                while True:  # the others elect a leader, if that was it
                    with contextlib.suppress(UnavailableError):
                        assert await store.keep_alive(lease)
                        break
            assert store._client.endpoint != used.endpoint
        finally:
            used.resume()
