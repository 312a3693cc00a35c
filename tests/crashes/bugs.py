"""Mistakes to plant in the local store, by name: a line as somebody might write it who did not know why it is so."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from logstore.filestore import local
from logstore.filestore.local import LocalStore

__all__ = ["BUGS", "Bug", "planted"]


@dataclass(frozen=True, slots=True)
class Bug:
    """``old`` becomes ``new`` in ``function`` of ``owner``. ``refused``: it shows where a sync fails.

    ``peer``: which failure of other systems it is, and whose.
    """

    owner: Any
    function: str
    old: str
    new: str
    history: str = "writers"
    refused: bool = False
    peer: str = ""


BUGS: Final = {
    "a file is not synced": Bug(local, "_write_synced", "os.fsync(handle)", "pass"),
    "a directory is not synced": Bug(LocalStore, "_sync", "os.fsync(handle)", "pass"),
    "the directory is not synced after the link": Bug(
        LocalStore, "_create", "self._sync(parent)", "pass", peer="torn segment (S2 669)"
    ),
    "directories made on the way are not synced": Bug(LocalStore, "_make_synced", "self._sync(parent)", "pass"),
    "a file is made in its place": Bug(
        LocalStore,
        "_link",
        "os.link(temporary, path)",
        "_write_synced(path, Path(temporary).read_bytes())",
        peer="torn segment (S2 669: zero-length and zero-filled files after a power cut)",
    ),
    "a file is renamed to its place": Bug(
        LocalStore, "_link", "os.link(temporary, path)", "os.rename(temporary, path)", "one process"
    ),
    "a reader does not sync what it found": Bug(LocalStore, "get", "status.st_nlink > 1", "False", "upkeep"),
    "the second name goes before the sync": Bug(
        LocalStore, "_create", "self._sync(parent)", "_unlink(temporary); self._sync(parent)", "upkeep"
    ),
    "a second sync is believed": Bug(LocalStore, "_sync", "self._doubtful.add(directory)", "pass", refused=True),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant the bug of that name while entered."""
    bug = BUGS[name]
    original = inspect.getattr_static(bug.owner, bug.function)
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(bug.old) == 1, f"production code has changed: plant the bug anew in {bug.function}"
    flags = __future__.annotations.compiler_flag
    code = compile(source.replace(bug.old, bug.new), inspect.getfile(original), "exec", flags)
    made: dict[str, Any] = {}
    exec(code, vars(local), made)
    with patch.object(bug.owner, bug.function, made[bug.function]):
        yield
