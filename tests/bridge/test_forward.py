"""Forwarding with an uplink that a test opens and closes; time is virtual."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from colonist_bridge.counts import Counts
from colonist_bridge.forward import Forwarder, Limits
from colonist_bridge.presence import Mark
from colonist_bridge.reply import Reply, read_reply
from colonist_bridge.screen import Refusal, Request
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.envelope import pack_failure, pack_reply
from colonist_protocol.errors import NoProcessError, TooLargeError
from tests.support.clock import virtual

ANNA, BERTA = "a" * 64, "b" * 64
FIRST, SECOND, REBOOTED = Mark("boot", 1), Mark("boot", 2), Mark("later", 1)


class Gate:
    """An uplink that answers when told to."""

    def __init__(self) -> None:
        self.is_up = True
        self.age_s: int | None = 7
        self.open: dict[bytes, asyncio.Future[Reply]] = {}
        self.forwarded: list[bytes] = []
        self.abandoned: list[bytes] = []

    async def exchange(self, body: bytes, *, wait_s: float) -> Reply:
        self.forwarded.append(body)
        waiter = self.open[body] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(wait_s):
                return await waiter
        except TimeoutError:
            raise UnreachableError("no reply in time") from None
        except asyncio.CancelledError:
            self.abandoned.append(body)
            raise

    async def answer(self, body: bytes, payload: bytes = b"{}") -> None:
        made = pack_reply("x", payload)
        self.open.pop(body).set_result(read_reply(made, max_bytes=10_000))
        await settled()

    async def refuse(self, body: bytes) -> None:
        made = pack_failure(NoProcessError("none"))
        self.open.pop(body).set_result(read_reply(made, max_bytes=10_000))
        await settled()

    async def fail(self, body: bytes, error: Exception) -> None:
        self.open.pop(body).set_exception(error)
        await settled()


class Post:
    """Where replies go. A test may hold them back."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def publish(self, device: str, message: bytes) -> None:
        await self.is_open.wait()
        self.sent.append((device, json.loads(message)))

    def hints(self) -> list[dict[str, object]]:
        return [m["hint"] for _, m in self.sent if "hint" in m]  # type: ignore[misc]


class Case:
    def __init__(self, limits: Limits) -> None:
        self.gate, self.post, self.counts = Gate(), Post(), Counts()
        self.forwarder = Forwarder(
            self.gate,
            self.post.publish,
            limits=limits,
            counts=self.counts,
            uniform=lambda low, _high: low,
            clock=asyncio.get_running_loop().time,
        )

    async def take(
        self, request: Request, mark: Mark | None = None, *, is_again: bool = False
    ) -> None:
        self.forwarder.accept(request, mark=mark, is_again=is_again)
        await settled()


async def settled() -> None:
    """Let everything run that can run now."""
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def case(limits: Limits | None = None) -> AsyncIterator[Case]:
    made = Case(limits or Limits())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.forwarder.run())
        await settled()
        try:
            yield made
        finally:
            task.cancel()


def request(
    body: bytes = b"r", *, device: str = ANNA, kind: str = "getprocessmsg", hold_s: float = 0.0
) -> Request:
    return Request(
        device=device,
        body=body,
        tag=body.hex()[:16],
        kind=kind,
        hold_s=hold_s,
        is_repeatable=kind != "submitfuncspecmsg",
    )


def poll(body: bytes = b"poll", *, device: str = ANNA) -> Request:
    return request(body, device=device, kind="assignprocessmsg", hold_s=60.0)


SUBMIT = request(b"submit", kind="submitfuncspecmsg")


@virtual
async def test_reply_goes_to_the_id_that_signed() -> None:
    async with case() as c:
        await c.take(request())
        await c.gate.answer(b"r")
        assert [(to, m["req"]) for to, m in c.post.sent] == [(ANNA, b"r".hex())]
        assert c.forwarder.open_requests == 0


@virtual
async def test_the_same_bytes_of_two_devices_are_two_requests() -> None:
    async with case() as c:
        await c.take(request())
        c.gate.open.clear()
        await c.take(request(device=BERTA))
        assert c.gate.forwarded == [b"r", b"r"]


@virtual
async def test_same_bytes_in_flight_join_and_get_one_reply() -> None:
    async with case() as c:
        await c.take(request())
        await c.take(request())
        await c.gate.answer(b"r")
        assert c.gate.forwarded == [b"r"]
        assert len(c.post.sent) == 1


@virtual
async def test_same_bytes_after_the_reply_are_a_new_request() -> None:
    async with case() as c:
        for _ in range(2):
            await c.take(request())
            await c.gate.answer(b"r")
        assert len(c.post.sent) == 2


@virtual
async def test_same_bytes_while_the_reply_is_being_acknowledged_go_out_after_it() -> None:
    async with case() as c:
        c.post.is_open.clear()
        await c.take(request(), FIRST)
        await c.gate.answer(b"r")
        await c.take(request(), FIRST)
        assert c.gate.forwarded == [b"r"]
        c.post.is_open.set()
        await settled()
        assert c.gate.forwarded == [b"r", b"r"]


@virtual
async def test_same_bytes_of_a_reconnected_device_wait_for_the_unpublished_reply() -> None:
    async with case() as c:
        c.post.is_open.clear()
        await c.take(request(), FIRST)
        await c.gate.answer(b"r")
        await c.take(request(), SECOND)
        c.post.is_open.set()
        await settled()
        assert c.gate.forwarded == [b"r"]
        assert len(c.post.sent) == 1


@virtual
async def test_grant_is_published_again_to_a_reconnected_device_and_not_fetched_anew() -> None:
    async with case() as c:
        await c.take(poll(), FIRST)
        await c.gate.answer(b"poll", b'{"work":1}')
        await c.take(poll(), SECOND)
        assert c.gate.forwarded == [b"poll"]
        assert c.post.sent[0] == c.post.sent[1]
        await c.take(poll(), SECOND)
        assert c.gate.forwarded == [b"poll", b"poll"]


@virtual
async def test_grant_is_not_published_again_after_a_reboot_or_a_long_time() -> None:
    async with case() as c:
        await c.take(poll(), FIRST)
        await c.gate.answer(b"poll")
        await c.take(poll(), REBOOTED)
        await c.gate.answer(b"poll")
        await asyncio.sleep(121)
        await c.take(poll(), Mark("later", 2))
        assert c.gate.forwarded == [b"poll"] * 3


@virtual
async def test_a_poll_that_ended_without_work_is_fetched_anew() -> None:
    async with case() as c:
        await c.take(poll(), FIRST)
        await c.gate.refuse(b"poll")
        await c.take(poll(), SECOND)
        assert c.gate.forwarded == [b"poll", b"poll"]


@virtual
async def test_copy_of_a_forwarded_request_is_dropped() -> None:
    async with case() as c:
        await c.take(SUBMIT)
        await c.gate.answer(b"submit")
        await c.take(SUBMIT, is_again=True)
        assert c.gate.forwarded == [b"submit"]
        assert c.counts.of("copy_dropped") == 1


@virtual
async def test_copy_from_before_a_restart_is_forwarded_only_if_it_may_be_repeated() -> None:
    async with case() as c:
        await c.take(SUBMIT, is_again=True)
        await c.take(request(), is_again=True)
        assert c.gate.forwarded == [b"r"]
        assert [hint["code"] for hint in c.post.hints()] == ["unknown"]


@virtual
async def test_a_new_poll_closes_the_exchange_of_the_held_one() -> None:
    async with case() as c:
        await c.take(poll(b"one"))
        await c.take(poll(b"two"))
        assert c.gate.abandoned == [b"one"]
        assert c.forwarder.held_polls == 1


@virtual
async def test_a_poll_of_one_device_leaves_those_of_others_alone() -> None:
    async with case() as c:
        await c.take(poll(b"one"))
        await c.take(poll(b"two", device=BERTA))
        assert c.forwarder.held_polls == 2


@virtual
async def test_withdraw_ends_polls_only() -> None:
    async with case() as c:
        await c.take(poll())
        await c.take(request())
        c.forwarder.withdraw(ANNA)
        await settled()
        assert c.gate.abandoned == [b"poll"]
        await c.gate.answer(b"r")
        assert len(c.post.sent) == 1


@virtual
async def test_a_poll_whose_reply_is_here_is_not_given_up() -> None:
    async with case() as c:
        c.post.is_open.clear()
        await c.take(poll())
        await c.gate.answer(b"poll")
        c.forwarder.withdraw(ANNA)
        c.post.is_open.set()
        await settled()
        assert len(c.post.sent) == 1


@virtual
async def test_limits_in_all_per_device_and_in_bytes_are_told_busy() -> None:
    limits = Limits(requests=3, requests_per_device=2, request_bytes=10, retry_after_s=8)
    async with case(limits) as c:
        for body in (b"1", b"2", b"3"):
            await c.take(request(body))
        await c.take(request(b"4" * 9, device=BERTA))
        assert [(to, m["hint"]["code"]) for to, m in c.post.sent] == [  # type: ignore[index]
            (ANNA, "busy"),
            (BERTA, "busy"),
        ]
        assert c.post.hints()[0]["retry_after_s"] == 4.0
        await c.take(request(b"5", device=BERTA))
        await c.take(request(b"6", device="c" * 64))
        assert c.post.sent[-1][0] == "c" * 64
        assert c.gate.forwarded == [b"1", b"2", b"5"]


@virtual
async def test_held_reads_take_no_places_of_other_requests_and_have_a_limit_of_their_own() -> None:
    limits = Limits(requests_per_device=2, held_per_device=3)
    async with case(limits) as c:
        for body in (b"h1", b"h2", b"h3", b"h4"):
            await c.take(request(body, hold_s=60.0))
        assert [hint["req"] for hint in c.post.hints()] == [b"h4".hex()]
        await c.take(poll())
        await c.take(request(b"1"))
        assert c.gate.forwarded == [b"h1", b"h2", b"h3", b"poll", b"1"]
        assert c.forwarder.held_polls == 1
        await c.take(poll(b"other poll"))
        assert c.forwarder.open_requests == 5  # the poll was replaced, the held reads were not


@virtual
async def test_held_reads_of_a_lost_device_are_given_up() -> None:
    async with case() as c:
        await c.take(request(b"held", hold_s=60.0))
        await c.take(request(b"quick"))
        c.forwarder.withdraw(ANNA)
        await settled()
        assert c.forwarder.open_requests == 1


@virtual
async def test_uplink_down_is_told_at_once_with_the_age_of_the_last_contact() -> None:
    async with case() as c:
        c.gate.is_up = False
        await c.take(request())
        assert c.gate.forwarded == []
        assert (c.post.hints()[0]["code"], c.post.hints()[0]["age_s"]) == ("try_later", 7)


@virtual
async def test_what_did_not_leave_and_what_may_have_are_told_apart() -> None:
    async with case() as c:
        for error in (NotSentError("no"), UnreachableError("no"), TooLargeError("no")):
            await c.take(request())
            await c.gate.fail(b"r", error)
        codes = [hint["code"] for hint in c.post.hints()]
        assert codes == ["try_later", "unknown", "reply_too_large"]


@virtual
async def test_a_fault_in_one_request_leaves_the_others_alone() -> None:
    async with case() as c:
        await c.take(request(b"1"))
        await c.take(request(b"2"))
        await c.gate.fail(b"1", ZeroDivisionError())
        await c.gate.answer(b"2")
        assert c.counts.of("failed") == 1
        assert len(c.post.sent) == 1


@virtual
async def test_a_poll_without_end_is_bounded_by_the_bridge() -> None:
    async with case(Limits(hold_s=100, reply_s=10)) as c:
        await c.take(request(b"p", kind="assignprocessmsg", hold_s=1e12))
        await asyncio.sleep(109)
        assert c.forwarder.open_requests == 1
        await asyncio.sleep(2)
        assert c.forwarder.open_requests == 0


@virtual
async def test_replies_that_no_broker_takes_are_given_up_and_counted() -> None:
    async with case(Limits(publish_s=50)) as c:
        c.post.is_open.clear()
        await c.take(request())
        await c.gate.answer(b"r")
        await asyncio.sleep(51)
        assert c.counts.of("unpublished") == 1
        assert c.forwarder.open_requests == 0


@virtual
async def test_hints_are_bounded_and_the_rest_is_counted() -> None:
    async with case(Limits(hints=2)) as c:
        c.post.is_open.clear()
        for _ in range(5):
            c.forwarder.refuse(ANNA, Refusal(code="not_json", tag=""))
        assert c.counts.of("hint_dropped") == 3
