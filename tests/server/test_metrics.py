"""The figures of `GET /metrics`: the text, the sizes of the store, and what strangers may see."""

import asyncio
import logging
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_protocol.process import State
from colonist_server.http.metrics import CONTENT_TYPE, METRICS, Kind, render
from colonist_server.loops import gauges
from colonist_server.loops.gauges import StoreGauge
from colonist_server.store.etcd.address import parse
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import UnavailableError
from colonist_server.store.measuring import measure
from colonist_server.store.sizes import Sizes, describe
from colonist_server.store.sqlite import SqliteStore
from tests.server.house import House
from tests.support.etcd import Options, cluster
from tests.support.rooms import COLONY

NAMES = [metric.name for metric in METRICS]
LINE = re.compile(r"(?P<name>[a-z_:][a-z0-9_:]*) (?P<value>\S+)")


@given(st.dictionaries(st.sampled_from(NAMES), st.floats()))
def test_the_text_gives_back_every_figure(values: dict[str, float]) -> None:
    text = render(values)
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            sample = LINE.fullmatch(line)
            assert sample, line
            found[sample["name"]] = float(sample["value"])
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name] == value or (math.isnan(value) and math.isnan(found[name]))
    assert text == "" or text.endswith("\n")


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_names_follow_the_rules_of_promtool(metric) -> None:
    """Counters and nothing else end in `_total`; base units; a help text; no type in the name."""
    assert re.fullmatch(r"colonist_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not re.search(r"_(ms|milliseconds|kb|mb|percent|gauge|counter|info)(_|$)", metric.name)
    lines = render({metric.name: 1}).splitlines()
    assert lines[0] == f"# HELP {metric.name} {metric.help}."
    assert lines[1:] == [f"# TYPE {metric.name} {metric.kind}", f"{metric.name} 1"]
    assert metric.help[0].isalnum()
    assert not set("\n\\") & set(metric.help)


def test_the_reference_has_every_figure_and_its_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == [(metric.name, str(metric.kind)) for metric in METRICS]


def test_names_are_used_once() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_what_no_metric_describes_is_not_told() -> None:
    assert render({"colonist_secret": 1}) == ""


class Store:
    """What is measured, or why it cannot be."""

    def __init__(self) -> None:
        self.answer: Sizes | Exception = Sizes(0, 0)

    async def measure(self) -> Sizes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_store_that_fills_up_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    gauge = StoreGauge(store.measure)
    told = []
    with caplog.at_level(logging.WARNING):
        for percent in (10, 79, 80, 95, 50, 81):
            store.answer = Sizes(percent, 5, 100)
            await gauge.look()
            told.append(len(caplog.records))
    assert told == [0, 0, 1, 1, 1, 2]
    assert "81% of the quota" in caplog.text


async def test_who_asks_whether_it_is_ready_sees_how_full_the_store_is() -> None:
    store = Store()
    gauge = StoreGauge(store.measure)
    assert gauge.note() == ""
    store.answer = Sizes(1 << 20, 1 << 20)
    await gauge.look()
    assert gauge.note() == ""
    store.answer = Sizes(1 << 20, 1 << 20, 1 << 22)
    await gauge.look()
    assert gauge.note() == "store: 1 MiB, 1 MiB of it in use, 25% of the quota of 4 MiB"


async def test_sizes_that_are_not_known_any_more_are_not_told() -> None:
    store = Store()
    gauge = StoreGauge(store.measure)
    assert gauge.figures() == {}
    store.answer = Sizes(200, 100, 1000, ("NOSPACE",))
    await gauge.look()
    assert gauge.figures() == {
        "colonist_store_size_bytes": 200,
        "colonist_store_size_in_use_bytes": 100,
        "colonist_store_quota_bytes": 1000,
        "colonist_store_alarm": 1,
    }
    for answer in (UnavailableError("away"), OSError(2, "gone"), TimeoutError()):
        store.answer = answer
        await gauge.look()
        assert gauge.figures() == {}
        store.answer = Sizes(1, 1)
        await gauge.look()
        assert "colonist_store_quota_bytes" not in gauge.figures()


async def test_a_store_that_hangs_does_not_hold_up_the_gauge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang() -> Sizes:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(gauges, "TIMEOUT_S", 0.01)
    gauge = StoreGauge(hang)
    await gauge.look()
    assert gauge.sizes is None


def test_sizes_are_told_to_a_person() -> None:
    mib = 1 << 20
    assert describe(Sizes(10 * mib, 4 * mib)) == "10 MiB, 4 MiB of it in use"
    told = describe(Sizes(1500 * mib, 900 * mib, 2048 * mib, ("NOSPACE",)))
    assert told == "1500 MiB, 900 MiB of it in use, 73% of the quota of 2048 MiB, alarm NOSPACE"


async def test_a_file_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with await SqliteStore.open(path, in_process=True) as store:
        sizes = await measure(store, f"sqlite:{path}")
    assert sizes.size_bytes >= path.stat().st_size > 0
    assert sizes.quota_bytes == 0


async def test_etcd_is_measured() -> None:
    async with cluster(options=Options(quota_bytes=1 << 28)) as etcd:
        url = f"etcd://{etcd.endpoints[0]}/test?quota={1 << 28}"
        async with await EtcdStore.open(parse(url)) as store:
            sizes = await measure(store, url)
    assert sizes.quota_bytes == 1 << 28
    assert 0 < sizes.in_use_bytes <= sizes.size_bytes < sizes.quota_bytes
    assert sizes.alarms == ()


async def test_a_server_tells_its_figures_and_no_names(home: House) -> None:
    got = await home.request("GET", "/metrics")
    assert (got.status, got.headers["Content-Type"]) == (200, CONTENT_TYPE)
    text = got.body.decode()
    view, hand_over = home.rooms.view, home.rooms.hand_over
    waiting = sum(row.state == State.WAITING for row in view.rows.values())
    running = sum(row.state == State.RUNNING for row in view.rows.values())
    assert waiting
    assert running
    assert f"\ncolonist_waiting {waiting}\n" in text
    assert f"\ncolonist_running {running}\n" in text
    assert f"\ncolonist_grants_total {hand_over.grants}\n" in text
    assert hand_over.grants
    assert "\ncolonist_is_leader 1\n" in text
    assert "\ncolonist_watch_behind_seconds 0\n" in text
    assert re.search(r"^colonist_store_size_bytes [1-9]", text, re.MULTILINE)
    secret = {COLONY, *home.rooms.view.colonies[COLONY].executors}
    assert not [name for name in secret if name in text]
    head = await home.request("HEAD", "/metrics")
    assert (head.status, head.body) == (200, b"")
    assert (await home.request("POST", "/metrics")).status == 405
