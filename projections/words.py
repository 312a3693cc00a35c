"""How numbers are said to people: stretches of time, sizes, moments, and what the watermark waits for. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from logstore.clock import stamp_ms

if TYPE_CHECKING:
    from logstore import Survey

__all__ = ["UNSEEN", "duration", "moment", "on_one_line", "size", "why_not_settled"]

UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
"""Characters that do something instead of being seen."""
_ESCAPES: Final = {"\t": "\\t", "\n": "\\n"}
_OBEYED: Final = re.compile(f"[\t\n]|{UNSEEN.pattern}")


def on_one_line(text: str) -> str:
    r"""Return text of unknown origin with nothing in it that a terminal obeys. JSON stays what it was.

    >>> print(on_one_line("web\x1b[2J\nroot"))
    web\u001b[2J\nroot
    """
    return _OBEYED.sub(lambda obeyed: _ESCAPES.get(obeyed.group(), f"\\u{ord(obeyed.group()):04x}"), text)


def duration(ms: int | None) -> str:
    """Return a stretch of time in words.

    >>> [duration(ms) for ms in (None, 12, 3_400, 200_000, 7_300_000, 300_000_000)]
    ['unknown', '12 ms', '3.4 s', '3 min', '2 h', '3 d']
    """
    if ms is None:
        return "unknown"
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= 2 * unit_ms:
            return f"{ms // unit_ms} {unit}"
    return f"{ms / 1000:.1f} s" if ms >= 1_000 else f"{ms} ms"


def size(count: int) -> str:
    """Return a number of bytes in words.

    >>> [size(count) for count in (999, 20_480, 5_000_000)]
    ['999 B', '20.0 KiB', '4.8 MiB']
    """
    for unit_bytes, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit_bytes:
            return f"{count / unit_bytes:.1f} {unit}"
    return f"{count} B"


def moment(stamp: int) -> str:
    """Return the time in a stamp as text.

    >>> moment(1_700_000_000_123 << 16)
    '2023-11-14T22:13:20.123Z'
    """
    try:
        at = datetime.fromtimestamp(stamp_ms(stamp) / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a year that no calendar of ours knows
        return f"{stamp_ms(stamp)} ms"
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def why_not_settled(survey: Survey) -> str:
    """How far the order is final, and what it waits for."""
    lag, holder = survey.watermark_lag_ms, survey.holder
    if lag == 0 and survey.watermark >= survey.newest_stamp:
        return "everything is settled"
    behind = f"{duration(lag)} behind the newest event"
    if holder is None:
        return f"{behind}: no roster entry lies above it yet; a writer that goes on or ends posts one"
    session = f"session {holder.chapter}/{holder.session} of {holder.writer}"
    if holder.may_be_sealed:
        return f"{behind}, held by {session}: its writer seems gone; run `logstore seal`"
    waits = f"{behind}, held by {session}: it has not ended; may be sealed"
    if holder.silent_ms is None:
        return f"{waits} once silent for {duration(holder.seal_ms)}; the store does not tell since when it is"
    return f"{waits} in {duration(holder.seal_ms - holder.silent_ms)} if it stays silent"
