"""What keeps the keys in a program's memory from others of the same user, and out of core dumps.

Python cannot wipe a key; the operating system can be told to show the memory to nobody.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Mapping
from typing import Final

OPEN_VARIABLE: Final = "COLONIST_DEBUGGABLE"

_PR_SET_DUMPABLE: Final = 4


def close(environment: Mapping[str, str]) -> None:
    """Allow no core dump, and on Linux no debugger but root's, nor a look into `/proc/PID/environ`.

    Programs that are started later are as they always were. `COLONIST_DEBUGGABLE=true` leaves all
    open, for debuggers and profilers.
    """
    if environment.get(OPEN_VARIABLE, "").lower() == "true":
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    else:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
