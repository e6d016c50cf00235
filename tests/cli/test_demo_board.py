"""What the demo shows is computed from journals and from the server's own times."""

import json
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from colonist_cli.demo import jobs, pictures
from colonist_cli.demo.board import Agents, Row, Run, Steps, read_journals, table
from colonist_cli.demo.stage import SCENE, WAYS
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process

SECOND = 1_000_000_000
START = 1_767_323_045 * SECOND  # 2026-01-02T03:04:05Z

PROCESS = Process(
    processid="p",
    initiatorid="",
    initiatorname="",
    assignedexecutorid="e",
    isassigned=False,
    state=2,
    prioritytime=0,
    submissiontime="2026-01-02T03:04:05.000000Z",
    starttime="2026-01-02T03:04:06.000000Z",
    endtime="2026-01-02T03:04:15.000000Z",
    spec=FunctionSpec(funcname="kernel"),
    out=msgspec.Raw(b'["Linux"]'),
)
JOB = jobs.Job(title="kernel", spec=PROCESS.spec, check=lambda _process: "")


def run(start_s: float, end_s: float = 0) -> Run:
    ended_ns = START + int(end_s * SECOND) if end_s else 0
    return Run(agent="a", started_ns=START + int(start_s * SECOND), ended_ns=ended_ns)


@pytest.mark.parametrize(
    ("runs", "steps"),
    [
        ([], Steps(waited_s=1.0, delivered_s=9.0)),
        ([run(1.5, 9)], Steps(waited_s=1.5, ran_s=7.5, delivered_s=1.0)),
        ([run(1), run(4, 9)], Steps(waited_s=4.0, ran_s=5.0, delivered_s=1.0)),
        # The first result arrived while a second run was under way already.
        ([run(1, 9), run(9.5, 15.5)], Steps(waited_s=1.0, ran_s=8.0, delivered_s=1.0)),
        ([run(1)], Steps(waited_s=1.0, delivered_s=9.0)),
    ],
)
def test_steps_are_of_the_run_whose_result_counted(runs: list[Run], steps: Steps) -> None:
    assert Row(JOB, PROCESS, runs).steps == steps


def test_journals_tell_who_ran_what(tmp_path: Path) -> None:
    lines = [
        {"event": "started", "process": "p", "time_ns": 1},
        {"event": "started", "process": "q", "time_ns": 3},
        {"event": "ended", "process": "p", "time_ns": 4},
    ]
    (tmp_path / "a").write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = [{"event": "started", "process": "q", "time_ns": 9}]
    (tmp_path / "b").write_text(json.dumps(again[0]) + "\n")
    found = read_journals({"a": tmp_path / "a", "b": tmp_path / "b", "c": tmp_path / "none"})
    assert found == {
        "p": [Run(agent="a", started_ns=1, ended_ns=4)],
        "q": [Run(agent="a", started_ns=3), Run(agent="b", started_ns=9)],
    }


@pytest.mark.parametrize("columns", [80, 100, 128, 200])
def test_the_table_fits_the_screen(columns: int) -> None:
    console = Console(width=columns, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    agents = Agents({"e": SCENE.over_mqtt}, WAYS)
    console.print(table([Row(JOB, PROCESS, [run(1, 9)])], agents, columns=columns))
    console.file.close()
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= columns
    for word in ("kernel", "mqtt", "1.00 s", "8.00 s", "Linux", "✓"):
        assert word in text


def test_a_curve_has_a_picture() -> None:
    assert pictures.spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert pictures.spark([5, 5]) == "▅▅"
    assert pictures.spark([0, 100, 250], (0, 100)) == "▁██"
    assert [pictures.amount(count) for count in (0, 999, 1000, 2.5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 TB",
    ]


def test_every_job_of_the_demo_notices_a_wrong_result(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    wrong = msgspec.structs.replace(PROCESS, out=msgspec.Raw(b'["{}", 0]'))
    failed = msgspec.structs.replace(PROCESS, state=3, errors=["broken"])
    for job in jobs.work(SCENE, [file]):
        if job.spec.funcname not in ("disk", "hangs_once"):  # their output is not known before
            assert job.check(wrong), job.title
        assert job.check(failed), job.title
