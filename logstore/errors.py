"""Every error this library raises on purpose, named by what the caller does next.

Messages are one line: a lowercase sentence, then ``key=value`` facts, then the next step.
Errors of the layers below (botocore, OSError, msgpack, zstandard) are translated where they
arise, with ``raise … from``; none leaks through the public interface.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "ClockSkew",
    "Conflict",
    "Corrupt",
    "Fenced",
    "InvalidArgument",
    "InvalidCursor",
    "KeyNeeded",
    "LimitExceeded",
    "LogStoreError",
    "Missing",
    "NotFound",
    "NotStored",
    "StaleStore",
    "Trimmed",
    "Unavailable",
    "Unknown",
    "UnsafeStore",
]


class LogStoreError(Exception):
    """Base of every error raised on purpose. Catch it to catch them all.

    >>> async def append_or_say_why(writer, event):
    ...     try:
    ...         return await writer.append(event)
    ...     except NotStored:
    ...         return "append it again"
    ...     except Unknown as unknown:
    ...         return f"ask later: {unknown.token}"
    ...     except LogStoreError as error:
    ...         return str(error)
    """


# The store --------------------------------------------------------------------------------


class Unavailable(LogStoreError):
    """The store did not answer, or refused for now. What was acknowledged is safe; try again later."""


class AlreadyExists(LogStoreError):
    """The name is taken: somebody, perhaps an earlier attempt of yours, created it. Read it to learn who."""

    def __init__(self, message: str, *, now_ms: int | None = None) -> None:
        super().__init__(message)
        self.now_ms = now_ms  # the store's own time when it answered, where it told


class NotFound(LogStoreError):
    """Nothing of that name is there. Create it first, or check the name."""

    def __init__(self, message: str, *, now_ms: int | None = None) -> None:
        super().__init__(message)
        self.now_ms = now_ms  # the store's own time when it answered, where it told


class UnsafeStore(LogStoreError):
    """The store breaks a promise we depend on, such as create-if-absent. Use another; `doctor` says which it breaks."""


# Appending --------------------------------------------------------------------------------


class NotStored(LogStoreError):
    """These events are certainly not in the log and never will be. Append them again if you still want them."""


class Unknown(LogStoreError):
    """It could not be found out whether these events are stored. Keep this; `log.resolve(error)` settles it later.

    ``token`` says the same in one line of text that outlives the process.
    """

    def __init__(self, message: str, *, token: str) -> None:
        super().__init__(message)
        self.token = token


class ClockSkew(LogStoreError):
    """This machine's clock differs too much from the store's. Repair its time synchronisation, then go on."""


class Conflict(LogStoreError):
    """A guard or an expected version did not hold, or a stage log is complete. Read again, decide again."""


class Fenced(LogStoreError):
    """Another leader took over. Stop serving; do not retry."""


class LimitExceeded(LogStoreError):
    """More than one request may carry. Send less at a time, or raise the setting that the message names."""


# Reading ----------------------------------------------------------------------------------


class Corrupt(LogStoreError):
    """Stored bytes are not what was written. Run `logstore check`; restore the object that the message names."""


class KeyNeeded(Corrupt):
    """An object is encrypted or signed with a key that this process does not have. Give it that by a `Protection`.

    A kind of Corrupt: without the key nobody can tell it from damage.
    """


class Missing(LogStoreError):
    """An object that was once stored is gone. Run `logstore check`; restore the object that the message names."""


class Trimmed(LogStoreError):
    """Retention removed what you were to read next. Start again from the newest snapshot, or from the beginning.

    A stage log that it removed is gone for ever: write under another retry.
    """


class StaleStore(LogStoreError):
    """This position belongs to another store, or to a later state of a restored one. Start again without it."""


# Arguments --------------------------------------------------------------------------------


class InvalidArgument(LogStoreError):
    """An argument cannot be used as it is. The message names it; correct it."""


class InvalidCursor(LogStoreError):
    """This cursor does not belong to this query or store. Ask for the first page again."""
