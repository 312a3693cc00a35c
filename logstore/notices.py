"""What the library says while it works: notices, told through ``logging``, each with a stable name and fields.

``NOTICES`` is the whole list; docs/observability.md shows it. To people a notice is a sentence that ends in facts; for
programs ``JsonFormatter`` makes one line of JSON of it. Nothing is logged for an event, a request or a poll.

Invariants:
- No field holds what users stored: names, numbers, and errors; of theirs only what a fold says that fails.
- What others chose as names is shown by a sentence, and not obeyed.
- A line of JSON is one line, of letters that any terminal shows, and holds no credential that this process knows.
- Every record becomes such a line, whatever its arguments and fields are.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from logstore.errors import LogStoreError

__all__ = ["NOTICES", "JsonFormatter", "Notice", "Notices"]


class Notice(NamedTuple):
    """A notice: how grave it is, what it says, and its fields besides ``store`` and ``error``."""

    level: int
    sentence: str
    fields: tuple[str, ...]


NOTICES: Final[Mapping[str, Notice]] = {
    "session-opened": Notice(logging.INFO, "a session was opened", ("writer", "session")),
    "session-ended": Notice(logging.INFO, "a session was ended by its writer", ("writer", "session", "slots")),
    "session-lost": Notice(
        logging.WARNING, "others sealed the session, its events are sent again", ("writer", "session", "events")
    ),
    "session-not-ended": Notice(
        logging.WARNING, "a session could not be ended, others will seal it", ("writer", "session")
    ),
    "session-sealed": Notice(logging.INFO, "a silent session of another was sealed", ("writer", "session")),
    "creation-given-up": Notice(logging.WARNING, "the creation of a segment was given up", ("writer", "key")),
    "slot-unreadable": Notice(logging.WARNING, "a slot is taken and cannot be read", ("writer", "key")),
    "events-not-stored": Notice(logging.ERROR, "events were not stored, and never will be", ("writer", "events")),
    "events-unknown": Notice(logging.ERROR, "nobody knows whether events are stored", ("writer", "key", "events")),
    "tick-not-posted": Notice(logging.WARNING, "a tick could not be posted, the watermark may lag", ("writer",)),
    "lead-acquired": Notice(logging.INFO, "this process leads", ("writer", "session", "kinds")),
    "lead-lost": Notice(logging.WARNING, "this process leads no more", ("writer", "kinds")),
    "chapter-ended": Notice(logging.INFO, "a chapter was ended", ("chapter",)),
    "chapter-retired": Notice(logging.INFO, "a chapter was retired", ("chapter", "archives")),
    "following-ended": Notice(logging.ERROR, "the log is followed no more", ()),
    "snapshot-written": Notice(logging.INFO, "a snapshot was written", ("projection", "version", "key", "rows")),
    "snapshot-passed-over": Notice(logging.WARNING, "a damaged snapshot was passed over", ("projection", "version")),
    "view-ended": Notice(logging.ERROR, "a view follows no more", ("projection", "version")),
    "round-problem": Notice(logging.WARNING, "a part of a keeper's round failed, the next one tries again", ()),
    "tracer-failed": Notice(logging.WARNING, "the tracer failed, what it was told of goes on without it", ()),
    "metrics-served": Notice(logging.INFO, "metrics are served", ("metrics",)),
    "could-not-run": Notice(logging.ERROR, "the verb could not run", ()),
    "left-open": Notice(logging.WARNING, "not closed when the process ended, it took too long", ("what",)),
    "closed-badly": Notice(logging.WARNING, "its with was not left, and it closed badly", ("what",)),
}
"""All notices, by name."""


class Notices:
    """Says notices through a logger. ``common``: fields that all of them have.

    >>> say = Notices(logging.getLogger("logstore.doctest"), writer="web-1")
    >>> say("session-opened", session="0/7")
    """

    def __init__(self, logger: logging.Logger, **common: Any) -> None:
        self._logger = logger
        self._common = common

    def __call__(self, name: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """Say the notice ``name``. Cost: a look whether anybody listens; some microseconds where somebody does.

        ``error``: what it is about; with where it was raised, if nobody raised it on purpose.
        """
        notice = NOTICES[name]
        assert {*self._common, *fields} <= {"store", *notice.fields}, name
        if not self._logger.isEnabledFor(notice.level):
            return
        told = {**self._common, **fields}
        if error is not None:
            told["error"] = f"{type(error).__name__}: {error}"
        facts = "".join(f" {field}={_seen(value)}" for field, value in told.items() if field not in ("store", "error"))
        because = f": {_seen(told['error'])}" if error is not None else ""
        self._logger.log(
            notice.level,
            "%s",
            f"{notice.sentence}{facts}{because}",
            exc_info=None if error is None or isinstance(error, LogStoreError) else error,
            stacklevel=2,
            extra={"notice": name, "told": told},
        )


def _seen(value: Any) -> str:
    """Return a value as text that no terminal obeys: others chose names."""
    text = str(value)
    return text if text.isprintable() else repr(text)


class JsonFormatter(logging.Formatter):
    """Makes one line of JSON of each record: time, level, logger, message; of notices their name and fields, too.

    Records of other libraries have no ``notice``. What the environment holds as a credential (of eight characters at
    least: shorter ones are words), and what looks like one within an address or a header, becomes ``…``.

    >>> record = logging.makeLogRecord({"name": "logstore.writer", "levelname": "INFO", "msg": "hello", "created": 0})
    >>> JsonFormatter(environment={}).format(record)
    '{"time":"1970-01-01T00:00:00.000Z","level":"info","logger":"logstore.writer","message":"hello"}'
    """

    SECRETS: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    SECRET_CHARACTERS_MIN: Final = 8

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        super().__init__()
        values = os.environ if environment is None else environment
        secrets = sorted((values.get(name, "") for name in self.SECRETS), key=len, reverse=True)
        known = [re.escape(secret) for secret in secrets if len(secret) >= self.SECRET_CHARACTERS_MIN]
        self._secret = re.compile("|".join([*known, *_LOOKS_SECRET]), re.IGNORECASE)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        try:
            return self._line(record, record.getMessage(), self._facts(record))
        except Exception as error:  # noqa: BLE001  # arguments and fields are anybody's: ``logging`` would print them
            message = f"a record that cannot be told: {record.msg if isinstance(record.msg, str) else '…'}"
            return self._line(record, message, {"error": type(error).__name__})

    def _line(self, record: logging.LogRecord, message: str, facts: Mapping[str, Any]) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        line = {"time": f"{at}Z", "level": record.levelname.lower(), "logger": record.name, "message": message, **facts}
        cleaned = {name: self._clean(value) for name, value in line.items()}
        return json.dumps(cleaned, separators=(",", ":"), allow_nan=False)

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if (notice := getattr(record, "notice", None)) is not None:
            facts |= {"notice": notice, **getattr(record, "told", {})}
        if record.exc_info and record.exc_info[0] is not None:
            facts["trace"] = self.formatException(record.exc_info)
        return facts

    def _clean(self, value: Any) -> Any:
        if isinstance(value, int | None) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, tuple | list):
            return [self._clean(each) for each in value]
        return self._secret.sub("…", str(value))


_LOOKS_SECRET: Final = (
    r"(?<=://)[^/\s]+(?=@)",  # a user and a password before a host; a password may hold an @, too
    r"(?<=X-Amz-Signature=)[0-9a-f]+",
    r"(?<=X-Amz-Security-Token=)[^&\s]+",
    r"(?<=X-Amz-Credential=)[^&\s]+",
    r"(?<=Authorization: )[^\n]+",
)
