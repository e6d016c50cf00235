"""A QR code as text: two rows of dots in each line. Pure, but for the library."""

from __future__ import annotations

from typing import Final

import segno

BORDER: Final = 2
"""Light dots around it: readers find it with two, where the terminal is dark."""

_DOTS: Final = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
"""Upper and lower dot, dark or not; light dots are drawn, for terminals are mostly dark."""


def drawn(text: str, *, is_inverted: bool = False) -> str:
    """Lines to be shown in a terminal; `is_inverted`: for dark letters on a light ground."""
    code = segno.make(text, error="m", micro=False)
    rows = [[bool(dot) for dot in row] for row in code.matrix_iter(border=BORDER)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    if is_inverted:
        rows = [[not dot for dot in row] for row in rows]
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join(
        "".join(_DOTS[dots] for dots in zip(upper, lower, strict=True)) for upper, lower in pairs
    )
