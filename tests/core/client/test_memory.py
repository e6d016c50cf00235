"""The memory of a program with keys: no core dump, no debugger; its children as ever."""

import subprocess
import sys

import pytest

LOOK = """
import ctypes, os, subprocess, sys
from colonist_client import memory
memory.close(os.environ)
own = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
child = subprocess.run([sys.executable, "-c", "import ctypes; print(ctypes.CDLL(None).prctl(3))"],
                       capture_output=True, text=True, check=True)
print(own, child.stdout.strip())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells whether a program is dumpable")
def test_the_memory_is_closed_and_that_of_its_children_is_not() -> None:
    for environment, told in (({}, "0 1"), ({"COLONIST_DEBUGGABLE": "true"}, "1 1")):
        done = subprocess.run(
            [sys.executable, "-c", LOOK],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == told
