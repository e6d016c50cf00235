"""What keeps the keys in a program's memory from others of the same user, and out of core dumps.

Python cannot wipe a key; the operating system can be told to show the memory to nobody. What a
program starts gets an environment without secrets: it could be read there.
"""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from collections.abc import Mapping
from typing import Final

OPEN_VARIABLE: Final = "COLONIST_DEBUGGABLE"

_PR_SET_DUMPABLE: Final = 4
_OURS: Final = re.compile(
    "COLON(IES|IST)_.*(PRVKEY|KEY_FILE|PASSPHRASE|PASSWORD|ARCHIVE).*|CREDENTIALS_DIRECTORY"
)
"""Variables that hold secrets of ours, or name their files."""
_ANY: Final = re.compile("COLON(IES|IST)_.*|.*(PASS|SECRET|TOKEN|KEY|CREDENTIAL).*", re.IGNORECASE)


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


def for_others(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program gets that is not ours: the environment less our secrets."""
    return {name: value for name, value in environment.items() if _OURS.fullmatch(name) is None}


def for_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process of ours gets: it is told all by whoever starts it, and needs no secret."""
    return {
        name: value
        for name, value in environment.items()
        if name == OPEN_VARIABLE or _ANY.fullmatch(name) is None
    }
