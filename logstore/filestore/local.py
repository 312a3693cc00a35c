"""A FileStore in a directory of a POSIX file system: the default store.

An object is a file whose path is its key. It is made in ``tmp/`` under the same root: written
whole, synced, and then *linked* to its name. A link either makes the name, complete, or fails
because the name is there: creation is atomic, exclusive, and never replaces anything. Then the
directory is synced, the name in ``tmp/`` goes, and only then does ``create`` return. A crash can
leave nothing but files in ``tmp/``, which nobody reads and ``sweep`` removes.

An object can be found a moment before its directory is synced, and its creator may have been killed
in that moment. It has two names then, and a ``get`` that sees two syncs the directory itself: who
read an object may build on it (seal behind it, name it in a tick), so it must survive what he builds.

Directories are made on the way and synced from the root down before anything is linked into
them, by every process for itself: that a directory exists does not say that its entry would
survive a power cut, because the one who made it may not have synced it yet. ``delete`` never
removes a directory, since another process may be about to link into it; ``sweep`` removes those
that stayed empty for long, and a ``create`` that meets a vanished directory makes it again.

Work that can block goes to threads, in ``_in_thread``. A ``get`` of an absent or a small file is
answered at once: tailing asks for absent files most of the time, and a thread hop costs ten
times what the answer does.

When a sync of a directory fails, the kernel may have dropped what it could not write, and the next
sync says nothing of it. So this process never again vouches for anything in that directory. (What
a file holds is written anew, into a new file, when the caller tries again.) Other processes cannot
know; after the file system was mounted anew, what is visible is what is on the disk.

Needs hard links and a ``fsync`` that reaches the medium; a file system without links raises
``UnsafeStore``. Over NFS an answer can be lost like on any network, so that ``AlreadyExists`` may
mean one's own object. Where file names ignore case, two keys that differ only in case are one
name: the second gets ``AlreadyExists``.

Invariants:
- A name under the root, ``tmp/`` excepted, refers to a file whose content was synced before it got that name.
- ``create`` returns, or says AlreadyExists, only after the name and all directories above it are synced.
- A file has its second name, in ``tmp/``, until its first is synced. ``get`` returns only what is synced.
- What a failed sync has left in doubt is not called stored, nor read, by this process, whatever later syncs say.
- ``_synced`` holds only directories whose whole chain of entries from the root was synced by this process.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from logstore.clock import Clock, SystemClock
from logstore.errors import AlreadyExists, InvalidArgument, LogStoreError, NotFound, Unavailable, UnsafeStore
from logstore.filestore.base import TEMPORARY, Blob, Listed, check_key, check_prefix, check_range, is_key

__all__ = ["LocalStore", "Swept"]

T = TypeVar("T")

INLINE_BYTES_MAX = 64 * 1024  # 64 KiB come out of the page cache faster than a thread starts
THREADS_MAX = 16  # fsyncs in flight; file systems merge those that wait together
LIST_BATCH = 256  # keys looked up for each trip to a thread
SYNCED_MAX = 4_096  # directories remembered; forgetting one costs a few syncs
ATTEMPTS_MAX = 4  # directories can vanish under a create only while a sweep runs
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}
_NO_SYNC = errno.EINVAL  # of file systems that are only read, as squashfs: what lies there has been synced
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: opening a stray pipe must not hang
_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_TEMPORARY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed: stale temporary files, and directories that had stayed empty."""

    temporaries: int
    directories: int


class LocalStore:
    """A FileStore under the directory ``root``, which is made on the first creation.

    ``clock`` tells ``now_ms`` and the age of what ``sweep`` removes; times of objects are those of
    their files. Costs: ``create`` two fsyncs (file and directory; a few more for the first one in a
    directory), ``get`` one open and one read, ``list`` one scan for each directory that can hold keys
    asked for and one stat for each key.

    >>> import asyncio, tempfile
    >>> async def example(root):
    ...     store = LocalStore(root)
    ...     await store.create("a/1", b"one")
    ...     return (await store.get("a/1")).data, [listed.key async for listed in store.list("a/")]
    >>> with tempfile.TemporaryDirectory() as root:
    ...     asyncio.run(example(root))
    (b'one', ['a/1'])
    """

    remote = False

    def __init__(self, root: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._root = os.path.abspath(root)
        self._temporary = os.path.join(self._root, TEMPORARY)
        self._clock = clock or SystemClock()
        self._synced: set[str] = set()
        self._doubtful: set[str] = set()  # directories of which a sync has failed
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="logstore-local")
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalStore root={self._root!r}{' closed' if self._closed else ''}>"

    # The five verbs ---------------------------------------------------------------------------

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore; returns the file's own time.

        InvalidArgument when ``key`` is a directory or lies below another key; UnsafeStore where
        files cannot be linked.
        """
        check_key(key)
        return await self._in_thread(self._create, key, data)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore. ``now_ms`` is the time of this machine. A file without bytes is returned as it is.

        Syncs the directory of a file that has another name as well: its creation may not be over.
        """
        check_key(key)
        check_range(start, stop)
        handle, status = self._open(key)
        try:
            count = max(0, min(status.st_size, status.st_size if stop is None else stop) - start)
            data = _read(handle, key, start, count) if count <= INLINE_BYTES_MAX else None
        finally:
            _close(handle)
        if status.st_nlink > 1:
            await self._in_thread(self._sync_found, key)
        if data is None:
            data = await self._in_thread(self._open_and_read, key, start, count)
        return Blob(data, status.st_size, status.st_mtime_ns // 1_000_000, self._clock.wall_ms())

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. Holds the names of one directory at each level in memory, never a whole tree."""
        check_prefix(prefix)
        start, slash, _ = prefix.rpartition("/")
        walk = self._walk(start + slash, prefix, after)
        while batch := await self._in_thread(lambda: list(islice(walk, LIST_BATCH))):
            for listed in batch:
                yield listed

    async def delete(self, key: str) -> None:
        """See FileStore. The directory stays, even when it is empty; see ``sweep``."""
        check_key(key)
        await self._in_thread(self._delete, key)

    async def aclose(self) -> None:
        """See FileStore. A create that is under way in a thread may still land."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Looking after the directory --------------------------------------------------------------

    async def sweep(self, *, older_than_ms: int) -> Swept:
        """Remove temporaries, and empty directories, not touched for ``older_than_ms``.

        The age must exceed the longest time that a creation can take; an hour is plenty. A creation
        that loses its temporary to a sweep raises Unavailable and has not landed. Cost: a scan of
        all directories, and a sync of each when a process died between a link and its sync.
        """
        return await self._in_thread(self._sweep, older_than_ms)

    # What runs in threads ---------------------------------------------------------------------

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run blocking work in a thread: the one place where this store leaves the event loop."""
        if self._closed:
            raise Unavailable(f"the store is closed root={self._root}")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _create(self, key: str, data: bytes) -> int:
        path, parent = self._path(key), os.path.dirname(self._path(key))
        temporary = os.path.join(self._temporary, f"{os.getpid()}-{os.urandom(8).hex()}")
        self._require_no_doubt(parent)  # first: whatever else is wrong by now, this the caller must hear
        try:
            if os.path.lexists(path):  # spares the loser of an old race the writing; the link below decides
                raise FileExistsError(errno.EEXIST, "the name is taken")
            self._make_synced(self._temporary)
            try:
                modified_ms = _write_synced(temporary, data)
                self._link(temporary, path, parent)
            except BaseException:
                _unlink(temporary)
                raise
            self._sync(parent)
            _unlink(temporary)  # not before, nor when that failed: two names tell readers that it may not last yet
        except FileExistsError as error:
            raise self._taken(key, path, parent) from error
        except OSError as error:
            if error.errno == errno.ENOTDIR and os.path.isdir(self._root):
                raise InvalidArgument(f"an object cannot lie below another key={key}") from error
            raise _translate(error, "create", key) from error
        return modified_ms

    def _link(self, temporary: str, path: str, parent: str) -> None:
        """Give the finished file its name; directories that a sweep took meanwhile are made again."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            self._make_synced(parent)
            try:
                os.link(temporary, path)
                return
            except FileNotFoundError:
                self._synced.discard(parent)
                if attempt == ATTEMPTS_MAX:
                    raise
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise UnsafeStore(f"this file system cannot link files errno={error.errno} path={path}") from error
                raise

    def _taken(self, key: str, path: str, parent: str) -> LogStoreError:
        """Say who has the name. The directory is synced first: a caller who finds its own object may call it stored."""
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return InvalidArgument(f"an object cannot have the name of a directory key={key}")
            self._make_synced(parent)
            self._sync(parent)
        except FileNotFoundError:
            pass  # created and deleted between our looks: it was taken when we asked
        except OSError as error:
            return _translate(error, "create", key)
        return AlreadyExists(f"the name is taken key={key}", now_ms=self._clock.wall_ms())

    def _sync_found(self, key: str) -> None:
        """Make the name of an object last that its creator may not have synced, or not live to."""
        try:
            self._sync(os.path.dirname(self._path(key)))
        except OSError as error:
            if error.errno != _NO_SYNC:
                raise _translate(error, "get", key) from error

    def _make_synced(self, directory: str) -> None:
        """Make ``directory`` and all above it down from the root, each entry synced; free when done before."""
        self._require_no_doubt(directory)
        if directory in self._synced:
            return
        self._make_root(self._root)
        made = self._root
        for name in Path(directory).relative_to(self._root).parts:
            made, parent = os.path.join(made, name), made
            try:
                os.mkdir(made)
            except FileExistsError:
                if not _is_directory(made):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), made) from None
            self._sync(parent)  # also where another process made it: it may not have synced it yet
        if len(self._synced) >= SYNCED_MAX:
            self._synced.clear()
        self._synced.add(directory)

    def _make_root(self, root: str) -> None:
        """Make ``root`` and the directories above it where they are missing, each entry synced."""
        if _is_directory(root):
            with suppress(PermissionError):  # what lies above an existing root need not be ours to read
                self._sync(os.path.dirname(root))
            return
        self._make_root(os.path.dirname(root))
        try:
            os.mkdir(root)
        except FileExistsError:
            if not _is_directory(root):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), root) from None
        self._sync(os.path.dirname(root))

    def _sync(self, directory: str) -> None:
        """Make all names in ``directory`` last. Unavailable for ever once the system has failed to."""
        handle = os.open(directory, _DIRECTORY)
        try:
            os.fsync(handle)
        except InterruptedError:
            raise
        except OSError as error:
            if error.errno != _NO_SYNC:
                self._doubtful.add(directory)
            raise
        finally:
            os.close(handle)
        self._require_no_doubt(directory)

    def _require_no_doubt(self, directory: str) -> None:
        """Raise Unavailable when a sync of ``directory`` has failed, or of one above it that it needs to be synced."""
        above = () if directory in self._synced else map(str, Path(directory).parents)
        if self._doubtful and (doubtful := self._doubtful.intersection((directory, *above))):
            raise Unavailable(
                "a sync of this directory failed, so what it holds may not be on the disk, whatever a later sync says;"
                f" check the disk, mount it anew, then restart this process directory={min(doubtful)}"
            )

    def _delete(self, key: str) -> None:
        path = self._path(key)
        try:
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(path).st_mode):
                    os.unlink(path)
            self._sync(os.path.dirname(path))  # also when absent: another's deletion may not be synced yet
        except (FileNotFoundError, NotADirectoryError):
            return  # nor is there a directory
        except OSError as error:
            raise _translate(error, "delete", key) from error

    def _walk(self, directory: str, prefix: str, after: str) -> Iterator[Listed]:
        """Yield what lies in ``directory`` ("" or a key prefix that ends in "/") and below, in order of whole keys.

        A directory sorts by its name with the slash, as in "a.b" < "a/" < "a0": every key below it
        begins so, and no other entry falls between them.
        """
        for name in self._names(directory):
            key = directory + name
            if key == TEMPORARY + "/":
                continue
            if not key.endswith("/"):
                if key > after and key.startswith(prefix) and is_key(key) and (listed := self._look(key)) is not None:
                    yield listed
            elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                yield from self._walk(key, prefix, after)

    def _names(self, directory: str) -> Sequence[str]:
        """Names of the files in ``directory``, and of its directories with a slash, sorted together."""
        try:
            with os.scandir(self._path(directory)) as entries:
                return sorted(
                    entry.name + "/" if entry.is_dir() else entry.name
                    for entry in entries
                    if entry.is_dir() or entry.is_file()
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _translate(error, "list", directory) from error

    def _look(self, key: str) -> Listed | None:
        try:
            status = os.stat(self._path(key))
        except FileNotFoundError:
            return None  # deleted since the directory was read
        except OSError as error:
            raise _translate(error, "list", key) from error
        return Listed(key, status.st_size, status.st_mtime_ns // 1_000_000)

    def _sweep(self, older_than_ms: int) -> Swept:
        before_ns = (self._clock.wall_ms() - older_than_ms) * 1_000_000
        directories = 0
        try:
            temporaries = self._sweep_temporaries(before_ns)
            for path, names, files in os.walk(self._root, topdown=False):
                if path not in (self._root, self._temporary) and not files:
                    # The age is looked at before the directories below go, which would make it young:
                    # a tree of empty directories shrinks by a level for each sweep.
                    directories += not names and _remove_if_older(path, before_ns, os.rmdir)
        except OSError as error:
            raise _translate(error, "sweep", "") from error
        return Swept(temporaries, directories)

    def _sweep_temporaries(self, before_ns: int) -> int:
        old = [path for path in self._temporaries() if _is_older(path, before_ns)]
        if any(_has_two_names(path) for path in old):  # the one that is left is to say that it was synced
            for path, _, _ in os.walk(self._root):
                self._sync(path)
        return sum(_remove_if_older(path, before_ns, os.unlink) for path in old)

    def _temporaries(self) -> Sequence[str]:
        try:
            with os.scandir(self._temporary) as entries:
                return [entry.path for entry in entries]
        except FileNotFoundError:
            return []

    # Small helpers ----------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        return os.path.join(self._root, key)

    def _open(self, key: str) -> tuple[int, os.stat_result]:
        """Open the file of ``key`` and look at it; NotFound where there is none."""
        try:
            handle = os.open(self._path(key), _READ)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no such object key={key}", now_ms=self._clock.wall_ms()) from None
        except OSError as error:
            raise _translate(error, "get", key) from error
        try:
            status = os.fstat(handle)
        except OSError as error:
            _close(handle)
            raise _translate(error, "get", key) from error
        if not stat.S_ISREG(status.st_mode):
            _close(handle)
            raise NotFound(
                f"no such object, only a directory or a special file key={key}", now_ms=self._clock.wall_ms()
            )
        return handle, status

    def _open_and_read(self, key: str, start: int, count: int) -> bytes:
        handle, _ = self._open(key)
        try:
            return _read(handle, key, start, count)
        finally:
            _close(handle)


def _write_synced(path: str, data: bytes) -> int:
    """Write a new file, sync it, and return its time (Unix ms)."""
    handle = os.open(path, _TEMPORARY, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
        return os.fstat(handle).st_mtime_ns // 1_000_000
    finally:
        os.close(handle)


def _read(handle: int, key: str, start: int, count: int) -> bytes:
    """Read ``count`` bytes; objects never change, so fewer mean that the device failed us."""
    try:
        data = os.pread(handle, count, start) if count else b""
        while len(data) < count and (more := os.pread(handle, count - len(data), start + len(data))):
            data += more
    except OSError as error:
        raise _translate(error, "get", key) from error
    if len(data) < count:
        raise Unavailable(f"the file ended early verb=get key={key} want_bytes={count} got_bytes={len(data)}")
    return data


def _close(handle: int) -> None:
    """Close what was only read: whatever the system says to that, the bytes are here."""
    with suppress(OSError):
        os.close(handle)


def _is_directory(path: str) -> bool:
    """``os.path.isdir``, but for an error that is no answer: that is raised."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _unlink(path: str) -> None:
    """Remove a temporary; one that cannot be removed is left to ``sweep``."""
    with suppress(OSError):
        os.unlink(path)


def _is_older(path: str, before_ns: int) -> bool:
    """Whether ``path`` is there and was last touched before that time."""
    try:
        return os.lstat(path).st_mtime_ns < before_ns
    except (FileNotFoundError, NotADirectoryError):
        return False


def _has_two_names(path: str) -> bool:
    try:
        return os.lstat(path).st_nlink > 1
    except FileNotFoundError:
        return False


def _remove_if_older(path: str, before_ns: int, remove: Callable[[str], None]) -> bool:
    """Remove ``path`` when it was last touched before that time; a path that is gone or in use stays as it is."""
    try:
        if not _is_older(path, before_ns):
            return False
        remove(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise


def _translate(error: OSError, verb: str, key: str) -> LogStoreError:
    """Say in our words what the operating system refused."""
    match error.errno:
        case errno.EACCES | errno.EPERM:
            what = "permission denied; check who owns the store's directory"
        case errno.EROFS:
            what = "the file system is read-only"
        case errno.ENOSPC | errno.EDQUOT:
            what = "no space left for the store"
        case errno.EMFILE | errno.ENFILE:
            what = "too many open files"
        case errno.EIO:
            what = "the device reports an input/output error"
        case _:
            what = f"the file system refused: {(error.strerror or 'unknown').lower()}"
    return Unavailable(f"{what} verb={verb} key={key} errno={errno.errorcode.get(error.errno or 0, error.errno)}")
