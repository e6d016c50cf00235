"""The etcd clusters that tests start: what they promise, on the real program."""

import os
import signal
from pathlib import Path

import grpc
import pytest
from aetcd import rpc

from tests.support import etcd, parts
from tests.support.etcd import Cluster, EtcdError, Options

CALL_S = 5.0


def kv(cluster: Cluster, member: int = 0) -> rpc.KVStub:
    return rpc.KVStub(grpc.insecure_channel(cluster.endpoints[member]))


def put(cluster: Cluster, key: bytes, value: bytes, **options: object) -> None:
    kv(cluster).Put(rpc.PutRequest(key=key, value=value), timeout=CALL_S, **options)


def get(cluster: Cluster, key: bytes, member: int = 0) -> bytes:
    reply = kv(cluster, member).Range(rpc.RangeRequest(key=key), timeout=CALL_S)
    return reply.kvs[0].value


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/exe").readlink().name


async def test_a_killed_member_has_what_it_acknowledged() -> None:
    async with etcd.cluster() as cluster:
        put(cluster, b"key", b"value")
        before = cluster.members[0].pid
        await cluster.members[0].restart()
        assert cluster.members[0].pid != before
        assert get(cluster, b"key") == b"value"


async def test_two_of_three_members_serve() -> None:
    async with etcd.cluster(3) as cluster:
        put(cluster, b"key", b"1")
        for at, member in enumerate(cluster.members):
            member.kill()
            other = cluster.members[at - 1]
            await other.until_healthy()
            assert get(cluster, b"key", at - 1) == b"1"
            await member.restart()


async def test_a_paused_member_answers_nobody_until_it_is_resumed() -> None:
    async with etcd.cluster() as cluster:
        put(cluster, b"key", b"1")
        cluster.members[0].pause()
        with pytest.raises(grpc.RpcError) as raised:
            kv(cluster).Range(rpc.RangeRequest(key=b"key"), timeout=0.3)
        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        cluster.members[0].resume()
        assert get(cluster, b"key") == b"1"


async def test_only_clients_with_a_certificate_are_heard() -> None:
    async with etcd.cluster(options=Options(tls=True)) as cluster:
        request = rpc.RangeRequest(key=b"key")
        with cluster.channel() as channel:
            assert rpc.KVStub(channel).Range(request, timeout=CALL_S).count == 0
        assert cluster.tls is not None
        bare = grpc.ssl_channel_credentials(cluster.tls.authority.read_bytes())
        with (
            grpc.secure_channel(cluster.endpoints[0], bare) as channel,
            pytest.raises(grpc.RpcError),
        ):
            rpc.KVStub(channel).Range(request, timeout=1.0)


async def test_a_user_may_use_one_prefix() -> None:
    async with etcd.cluster(options=Options(users="one/")) as cluster:
        name, password = etcd.USER
        with cluster.channel() as channel:
            who = rpc.AuthenticateRequest(name=name, password=password)
            token = rpc.AuthStub(channel).Authenticate(who, timeout=CALL_S).token
        put(cluster, b"one/key", b"1", metadata=[("token", token)])
        with pytest.raises(grpc.RpcError, match="permission denied"):
            put(cluster, b"two/key", b"1", metadata=[("token", token)])
        with pytest.raises(grpc.RpcError):
            put(cluster, b"one/key", b"1")


async def test_writes_end_at_the_quota() -> None:
    async with etcd.cluster(options=Options(quota_bytes=64 * 1024)) as cluster:

        def fill() -> None:
            for n in range(1000):
                put(cluster, b"%d" % n, bytes(10_000))

        with pytest.raises(grpc.RpcError, match="space exceeded"):
            fill()


async def test_members_end_with_the_block_even_when_frozen() -> None:
    async with etcd.cluster(3) as cluster:
        pids = [member.pid for member in cluster.members]
        cluster.members[1].pause()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_a_member_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "flags", lambda _: ["--no-such-flag"])
    with pytest.raises(EtcdError, match="no-such-flag"):
        async with etcd.cluster():
            raise AssertionError("it started")


async def test_the_program_itself_is_signalled() -> None:
    """A wrapper in between would take the signal instead of etcd."""
    async with etcd.cluster() as cluster:
        assert program(cluster.members[0].pid) == "etcd"
        assert parts.etcd().version
