"""Copy a store into another: back-up and restore. docs/rfcs/0005-copies.md.

Invariants:
- Nothing is created in the target but what was decoded and found whole; nothing is written to the source.
- Whoever opens the target finds a log that is whole: it has no `store` until everything is there, and what is added
  later comes in an order in which nothing names what is not there yet.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import aclosing

from logstore.clock import Clock, SystemClock
from logstore.errors import InvalidArgument, NotFound, Unavailable
from logstore.filestore import RetryingStore, open_filestore, require_safe
from logstore.filestore.base import FileStore, Listed
from logstore.finding import Finding, Progress
from logstore.identity import HISTORIES, ID_BYTES, Identity, decode_identity, encode_identity
from logstore.keys import (
    ARCHIVE,
    CHUNKS,
    CLAIMS,
    RETIRED,
    SNAPSHOTS,
    STORE,
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    EntryKey,
    Key,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StagePageKey,
    entry_key,
    parse_key,
    stage_page_key,
    stage_prefix,
)
from logstore.protection import Protection, protect
from logstore.rescue import rescue
from logstore.stagelisting import ListedStage, listed_stages
from logstore.transfer import carry, fetch_whole

__all__ = ["copy_store"]


async def copy_store(
    source: str | FileStore,
    target: str | FileStore,
    *,
    history: str | None = None,
    accept_loss: bool = False,
    on_loss: Callable[[Finding], None] | None = None,
    progress: Progress | None = None,
    source_protection: Protection | None = None,
    target_protection: Protection | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> bytes:
    """Make ``target`` a copy of ``source``, or continue one; return the copy's id. Both may be in use.

    They are addresses or filestores. A copy is a store of its own, whose ``ancestor`` is the source; it cannot be
    opened until it is whole. ``history``: the copy's policy, where it is to be another than the source's.
    ``progress`` counts the objects created. ``source_protection``, ``target_protection``: as for ``open``; a copy may
    be protected in another way than its source; who signs one may ``keep``. ``clock`` and ``rng`` are for tests.

    ``accept_loss``: leave out what is lost or damaged in the source, and what cannot stand without it; ``on_loss`` is
    told, when all else is copied. The target must be empty. Where anything was left out it is no copy to be continued.

    Cost: a LIST per 1,000 keys of either; a GET and a PUT per object that the target has not, with ``accept_loss``
    up to two GETs; nothing is written to the source. Raises InvalidArgument for a target that is no copy of this
    source, was written to, or has another history; Corrupt and Missing, naming what is wrong in the source;
    Unavailable: run it again, and it goes on.

    >>> import asyncio
    >>> async def back_up():
    ...     return await copy_store("file:///srv/cp", "s3://backups/cp")
    """
    if history is not None and history not in HISTORIES:
        raise InvalidArgument(f"no such history policy history={history!r:.40}; use one of {', '.join(HISTORIES)}")
    clock, rng = clock or SystemClock(), rng or random.Random(secrets.randbits(128))
    stores = [open_filestore(each) if isinstance(each, str) else each for each in (source, target)]
    first, second = (
        protect(RetryingStore(each, clock=clock, rng=rng), protection)
        for each, protection in zip(stores, (source_protection, target_protection), strict=True)
    )
    try:
        if accept_loss:
            identity = await rescue(
                first,
                second,
                history=history,
                progress=progress or Progress(),
                on_loss=on_loss or _ignore,
                now_ms=clock.wall_ms(),
                rng=rng,
            )
        else:
            identity = await _copy(first, second, history, progress or Progress(), now_ms=clock.wall_ms(), rng=rng)
    finally:
        await first.aclose()
        await second.aclose()
    return identity.id


def _ignore(_: Finding) -> None:
    """The caller does not want to know."""


async def _copy(
    source: FileStore, target: FileStore, history: str | None, progress: Progress, *, now_ms: int, rng: random.Random
) -> Identity:
    identity = decode_identity(await fetch_whole(source, STORE))
    own = await _identity(target)
    if own is not None and own.ancestor != identity.id:
        raise InvalidArgument(
            f"the target is no copy of this source target={own.id.hex()} source={identity.id.hex()};"
            " copy into an empty place"
        )
    if own is not None and history not in (None, own.history):
        raise InvalidArgument(
            f"the copy has another history policy, which never changes history={own.history} wanted={history};"
            " leave it as it is, or copy into an empty place"
        )
    if own is None:
        await require_safe(target, rng.randbytes(8).hex())
    records = [listed async for listed in source.list(RETIRED)]  # before all that they rely on is listed
    retired = _chapters(records)
    roster = [listed async for listed in source.list("roster/")]
    entries = {listed.key for listed in roster}
    await _require_same_roster(source, target, entries, retired)
    manifests = [listed async for listed in source.list(SNAPSHOTS)]
    left_out = retired if own is None else set()  # a copy that is continued is read meanwhile: it needs them till then
    of_log = [
        _unretired(left_out, _sessions_of(entries, source.list("log/"))),
        _unretired(left_out, _each(roster)),
        _archives_of(retired, source.list(ARCHIVE)),
        _of_kind(ClaimKey, source.list(CLAIMS)),
    ]
    of_snapshots = [source.list(CHUNKS), _points_of(entries, manifests)]
    if own is None:  # nobody can read it yet: what keeps others from making a `store` comes first
        listings = [_each(records), *reversed(of_log), *of_snapshots]
    else:  # a record says that snapshots hold a chapter: they come before it
        listings = [*of_log, *of_snapshots, _each(records)]
    for listing in listings:
        async with aclosing(_absent(listing, target, retired)) as absent:
            await carry(absent, source, target, progress, may_be_gone=lambda name: _may_be_gone(name, retired))
    async with aclosing(_absent_stage_logs(source, target)) as absent:
        await carry(absent, source, target, progress)
    if own is not None:
        return own
    made = encode_identity(
        Identity(
            id=rng.randbytes(ID_BYTES),
            created_ms=now_ms,
            grace_ms=identity.grace_ms,
            history=history or identity.history,
            ancestor=identity.id,
            origin=identity.root,
        )
    )
    await target.create(STORE, made)
    return decode_identity(made)


async def _identity(store: FileStore) -> Identity | None:
    try:
        return decode_identity((await store.get(STORE)).data)
    except NotFound:
        return None


# What is to be copied, in order


def _chapters(records: Iterable[Listed]) -> set[int]:
    return {key.chapter for listed in records if isinstance(key := parse_key(listed.key), RetiredKey)}


async def _require_same_roster(
    source: FileStore, target: FileStore, entries: Collection[str], retired: Collection[int]
) -> None:
    """Whoever writes to a store begins with its roster; if the last entries are equal, all are: each holds a digest.

    What lies in chapters that are retired proves nothing.
    """
    last = ""
    async for listed in target.list("roster/"):
        key = parse_key(listed.key)
        if isinstance(key, EntryKey) and key.chapter not in retired:
            last = listed.key
            if last not in entries:
                raise InvalidArgument(
                    f"the target was written to: the source has no such entry key={last}; copy into an empty place"
                )
    if last and await fetch_whole(source, last) != await fetch_whole(target, last):
        raise InvalidArgument(f"the target was written to: entries differ key={last}; copy into an empty place")


def _may_be_gone(name: str, retired: Collection[int]) -> bool:
    """Whether an object that was just listed may be collected before it is fetched.

    Of a snapshot its chunks are listed, and copied, first: while its manifest is there none of them is collected.
    """
    match parse_key(name):
        case ChunkKey() | ManifestKey() | RegistrationKey():
            return True
        case EntryKey(chapter=chapter) | SegmentKey(chapter=chapter):
            return chapter in retired
        case _:
            return False


async def _each(listing: Iterable[Listed]) -> AsyncIterator[Listed]:
    for listed in listing:
        yield listed


async def _sessions_of(entries: Collection[str], listing: AsyncIterator[Listed]) -> AsyncIterator[Listed]:
    """The segments of sessions that are on the roster."""
    async for listed in listing:
        key = parse_key(listed.key)
        if isinstance(key, SegmentKey) and entry_key(key.chapter, key.session) in entries:
            yield listed


async def _unretired(retired: Collection[int], listing: AsyncIterator[Listed]) -> AsyncIterator[Listed]:
    """What lies in chapters that are not retired: the rest may be collected at any moment, and nobody reads it."""
    async for listed in listing:
        key = parse_key(listed.key)
        if isinstance(key, SegmentKey | EntryKey) and key.chapter not in retired:
            yield listed


async def _archives_of(retired: Collection[int], listing: AsyncIterator[Listed]) -> AsyncIterator[Listed]:
    """The archives of retired chapters."""
    async for listed in listing:
        key = parse_key(listed.key)
        if isinstance(key, ArchiveKey) and key.chapter in retired:
            yield listed


async def _of_kind(kind: type[Key], listing: AsyncIterator[Listed]) -> AsyncIterator[Listed]:
    """Those whose names are of one kind."""
    async for listed in listing:
        if isinstance(parse_key(listed.key), kind):
            yield listed


async def _points_of(entries: Collection[str], manifests: Iterable[Listed]) -> AsyncIterator[Listed]:
    """The registrations, and the manifests of points that are on the roster."""
    for listed in manifests:
        match parse_key(listed.key):
            case RegistrationKey():
                yield listed
            case ManifestKey(chapter=chapter, number=number) if entry_key(chapter, number) in entries:
                yield listed


async def _absent(
    listing: AsyncIterator[Listed], target: FileStore, retired: Collection[int]
) -> AsyncGenerator[str, None]:
    """The names of ``listing``, which is in order, that the target has not."""
    theirs: AsyncIterator[Listed] | None = None
    there: Listed | None = None
    async for listed in listing:
        if theirs is None:
            theirs = aiter(target.list(listed.key.split("/", 1)[0] + "/"))
            there = await anext(theirs, None)
        while there is not None and there.key < listed.key:
            there = await anext(theirs, None)
        if there is None or there.key != listed.key:
            yield listed.key
        elif there.size != listed.size and not _may_be_gone(listed.key, retired):
            raise InvalidArgument(
                f"the target holds another object key={listed.key} bytes={there.size} source={listed.size};"
                " copy into an empty place"
            )


async def _absent_stage_logs(source: FileStore, target: FileStore) -> AsyncGenerator[str, None]:
    """The names that the target has not of stage logs: the pages of each, or of one that is gone the record of that.

    One that is gone in the target is left alone: whoever keeps the copy may let go sooner.
    """
    async with aclosing(listed_stages(source)) as ours, aclosing(listed_stages(target)) as theirs:
        there = await anext(theirs, None)
        async for stage in ours:
            while there is not None and stage_prefix(there.id) < stage_prefix(stage.id):
                there = await anext(theirs, None)
            held = there if there is not None and there.id == stage.id else ListedStage(stage.id)
            if held.gone is not None:
                continue
            if stage.gone is not None:
                yield stage.gone.key
                continue
            names = await _pages_of(source, stage)
            await _require_beginning(source, target, held, names)
            for name in names[len(held.pages) :]:
                yield name


async def _pages_of(source: FileStore, stage: ListedStage) -> list[str]:
    """The names of all pages of a stage log. Raises Missing where one is lost that has others behind it."""
    for number, page in enumerate(stage.pages):
        if page.key != (name := stage_page_key(StagePageKey(stage.id, number))):
            await fetch_whole(source, name)
            raise Unavailable(f"a listing of the source lacks what is there key={name}; run it again")
    return [page.key for page in stage.pages]


async def _require_beginning(source: FileStore, target: FileStore, held: ListedStage, names: list[str]) -> None:
    """Raise InvalidArgument unless what the target has of a stage log, whose pages are ``names``, is where it begins.

    Where something is to be added the last pages are compared: if these are equal, all are, for each holds a digest.
    """
    pages = [page.key for page in held.pages]
    if not pages or pages == names:
        return
    last = pages[-1]
    if pages != names[: len(pages)] or await fetch_whole(source, last) != await fetch_whole(target, last):
        raise InvalidArgument(
            f"the target was written to: a stage log has another page key={last}; copy into an empty place"
        )
