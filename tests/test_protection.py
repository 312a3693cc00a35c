"""Protected stores as a whole: everything that works on a plain one, who is kept out, and how one becomes the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import logstore
from logstore import (
    Block,
    Corrupt,
    Event,
    InvalidArgument,
    KeyNeeded,
    Keyring,
    Protection,
    SigningKey,
    StageId,
    Trust,
    Trusted,
    copy_store,
)
from logstore.check import check
from logstore.filestore import FileStore, MemoryStore
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    EntryKey,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StagePageKey,
    parse_key,
)
from logstore.protection import protect
from projections import View
from projections.cli import main
from tests.protected import KEY, KEYRING, OTHER_KEY, SIGNING_KEYS, TRUST, protected
from tests.scene import Scene, directed, events, read
from tests.test_keeper import age, keep, live_a_day, opened
from tests.test_snapshots import Diary, Things, named, thing


@directed
async def test_history_is_kept_archived_and_read_in_a_protected_store(scene: Scene) -> None:
    """Sessions, snapshots, retirement, archives, collection: after all that the log reads as it did."""
    scene.protection = protected()
    for number in range(1, 4):
        await live_a_day(scene, number, history="archive", snapshots=2)
        await age()
    async with opened(scene.machine("before"), "archive") as log:
        before = [(event.key, event.data, event.stamp) async for event in log.read()]
    for _ in range(4):
        await keep(scene, history="archive")
        await age()
    assert len(named(scene, RetiredKey)) == len(named(scene, ArchiveKey)) == 3
    async with opened(scene.machine("after"), "archive") as log, View.open(log, Diary()) as view:
        assert [(event.key, event.data, event.stamp) async for event in log.read()][: len(before)] == before
        assert view.damage == []


async def fill(store: FileStore, protection: Protection | None, *keys: str, writer: str = "web") -> None:
    async with logstore.open(store, protection=protection) as log, log.writer(writer) as web:
        if keys:
            await web.append_many(events(*keys))


async def raw(store: FileStore) -> dict[str, bytes]:
    return {listed.key: (await store.get(listed.key)).data async for listed in store.list("")}


async def damage(store: FileStore) -> list[str]:
    return [str(finding) async for finding in check(store) if finding.severity == "damage"]


@pytest.mark.parametrize(
    "protection",
    [Protection(keyring=KEYRING), Protection(trust=TRUST, signing_key=SIGNING_KEYS["keeper"]), protected()],
    ids=["encrypted", "signed", "both"],
)
async def test_who_is_not_set_up_alike_neither_reads_nor_writes(protection: Protection) -> None:
    """Without keys a protected store says what is needed; with keys a plain one is refused. Nothing is created."""
    store, plain = MemoryStore(), MemoryStore()
    await fill(store, protection, "a")
    await fill(plain, None, "a")
    there, there_plain = await raw(store), await raw(plain)
    for read_only in (True, False):
        with pytest.raises(KeyNeeded, match=r"object is (encrypted|signed) key=store; "):
            async with logstore.open(store, read_only=read_only):
                pass
        with pytest.raises(Corrupt, match=r"object is not (encrypted|signed), as its store should be key=store; "):
            async with logstore.open(plain, read_only=read_only, protection=protection):
                pass
    assert (await raw(store), await raw(plain)) == (there, there_plain)


@pytest.mark.parametrize(
    ("half", "said"),
    [(Protection(keyring=KEYRING), "object is signed"), (Protection(trust=TRUST), "object is encrypted")],
)
async def test_who_has_half_of_a_protection_is_told_of_the_other(half: Protection, said: str) -> None:
    """Keys without trust, trust without keys: KeyNeeded, which says what is needed, not that something is damaged."""
    store = MemoryStore()
    await fill(store, protected(), "a")
    with pytest.raises(KeyNeeded, match=said):
        async with logstore.open(store, protection=half):
            pass


async def test_a_store_is_made_by_who_may_keep() -> None:
    """Whoever else comes first is told so, and makes none: made anew, a `store` could say that no history is kept."""
    store = MemoryStore()
    with pytest.raises(InvalidArgument, match=r"may not be signed key=store .* needs the role keep"):
        await fill(store, protected("snapper"), "a", writer="snapper")
    assert await raw(store) == {}
    await fill(store, protected())
    await fill(store, protected("snapper"), "a", writer="snapper")
    async with logstore.open(store, read_only=True, protection=Protection(KEYRING, TRUST)) as log:
        assert await read(log) == ["a"]


async def test_a_writer_under_another_name_is_told_before_anything_is_stored() -> None:
    """Who signs as web may open no session of another writer: InvalidArgument, and readers read on."""
    store = MemoryStore()
    await fill(store, protected())
    await fill(store, protected("web"), "a")
    there = await raw(store)
    async with logstore.open(store, protection=protected("web")) as log, log.writer("other") as other:
        with pytest.raises(InvalidArgument, match="it opens a session of other"):
            await other.append(Event("Thing", "b", "t"))
    assert await raw(store) == there
    async with logstore.open(store, read_only=True, protection=Protection(KEYRING, TRUST)) as log:
        assert await read(log) == ["a"]


async def test_damage_in_a_protected_store_is_found_and_skipped() -> None:
    """One object exchanged for another's: check names it, skipping reads the other session, rescue saves that."""
    store = MemoryStore()
    await fill(store, protected(), "a")
    await fill(store, protected(), "b", writer="snapper")
    hit = next(
        name for name in await raw(store) if isinstance(key := parse_key(name), SegmentKey) and key.writer == "web"
    )
    other = next(name for name in await raw(store) if name.startswith("log/snapper/"))
    data = (await store.get(other)).data
    await store.delete(hit)
    await store.create(hit, data)
    found = await damage(protect(store, protected()))
    assert len(found) == 1
    assert hit in found[0]
    async with logstore.open(store, read_only=True, protection=protected()) as log:
        assert await read(log, on_damage="skip") == ["b"]
    saved = MemoryStore()
    await copy_store(store, saved, accept_loss=True, source_protection=protected(), target_protection=protected())
    async with logstore.open(saved, read_only=True, protection=protected()) as log:
        assert await read(log) == ["b"]


class Things2(Things):
    """The same by another name: a projection of its own."""

    name = "things-2"


@directed
async def test_a_keeper_that_lacks_a_key_collects_nothing(scene: Scene) -> None:
    """Forgotten when a key was added everywhere: KeyNeeded, as what only an unreadable manifest lists is no garbage."""
    older, newer = Keyring([KEY, OTHER_KEY]), Keyring([OTHER_KEY, KEY])
    scene.protection = protected()
    await live_a_day(scene, 1)
    scene.protection = replace(protected(seed=1), keyring=newer)
    async with opened(scene.machine("newer")) as log, View.open(log, Things2()) as view:
        await view.snapshot()
        digest = view.digest()
    await age()
    scene.protection = replace(protected(seed=2), keyring=older)
    for number in (2, 3):
        await live_a_day(scene, number, snapshots=2)
        await age()
    scene.protection = protected(seed=3)
    chunks = named(scene, ChunkKey)
    for name in ("first", "second"):
        with pytest.raises(KeyNeeded, match=r"not in the keyring key=snapshots/things-2/.*/manifest/.*; add it"):
            await keep(scene, name)
        await age()
    assert named(scene, ChunkKey) == chunks
    scene.protection = replace(protected(seed=4), keyring=older)
    _, collected = await keep(scene, "third")
    assert collected != []
    async with opened(scene.machine("reader")) as log:
        fold = Things2().registration().key
        manifest = await log.snapshots.manifest((await log.snapshots.records(fold)).manifests[0])
        assert f"{manifest.rows_digest:064x}" == digest
        for listed in manifest.chunks:
            await log.snapshots.chunk(listed.key)


async def test_what_a_check_has_no_key_for_is_not_to_be_given_up() -> None:
    """Objects of every kind under a key that this process lacks, or of a signer it does not trust: give it the key."""
    store = MemoryStore()
    await fill(store, protected())
    newer = Protection(Keyring([OTHER_KEY, KEY]), TRUST, SIGNING_KEYS["snapper"])
    async with logstore.open(store, protection=newer) as log:
        async with log.writer("snapper") as writer, View.open(log, Diary()) as view:
            await writer.append(thing(1))
            await view.snapshot()
        await log.stage_log(StageId("d", "s")).append([Block(0, "line")])
    others = Trust(tuple(writer for writer in TRUST.writers if writer.name != "snapper"))
    for reader in (protected(), Protection(newer.keyring, others)):
        found = [finding async for finding in check(protect(store, reader)) if finding.severity == "damage"]
        kinds = {type(parse_key(finding.key)) for finding in found if "key_id=" in finding.what}
        assert kinds >= {EntryKey, SegmentKey, ManifestKey, RegistrationKey, StagePageKey}
        for finding in found:
            assert ("give this process the key" in finding.next_step) == ("key_id=" in finding.what), finding


@pytest.mark.parametrize(
    "reading",
    [None, Protection(keyring=KEYRING), Protection(Keyring([OTHER_KEY]), TRUST)],
    ids=["plain", "half", "wrong"],
)
async def test_a_rescue_without_the_keys_gives_nothing_up(reading: Protection | None) -> None:
    """With no keys, half of them or others: KeyNeeded. It made a copy that held nothing, all of it lost."""
    store, target = MemoryStore(), MemoryStore()
    await fill(store, protected(), "a")
    with pytest.raises(KeyNeeded, match="key=store"):
        await copy_store(store, target, accept_loss=True, source_protection=reading)
    assert await raw(target) == {}


@pytest.mark.parametrize("replaced", ["log/", "roster/", "store", "snapshots/ chunks/"])
async def test_two_stores_with_the_same_keys_are_told_apart_by_their_chains(replaced: str) -> None:
    """Segments, entries, `store` or snapshots of the other one: Corrupt, or passed over; never its rows."""
    stores = [MemoryStore(), MemoryStore()]
    for number, store in enumerate(stores):
        opening = logstore.open(store, protection=protected(seed=number))
        async with opening as log, log.writer("web") as writer, View.open(log, Things()) as view:
            await writer.append(thing(number))
            await view.snapshot()
            await writer.append(thing(number + 10))
    own, others = [await raw(store) for store in stores]
    prefixes = tuple(replaced.split())
    mixed = MemoryStore()
    for name, data in own.items():
        if not name.startswith(prefixes):
            await mixed.create(name, data)
    for name, data in others.items():
        if name.startswith(prefixes):
            await mixed.create(name, data)
    async with AsyncExitStack() as stack:
        if replaced != "snapshots/ chunks/":
            stack.enter_context(pytest.raises(Corrupt, match="does not follow"))
        log = await stack.enter_async_context(logstore.open(mixed, read_only=True, protection=protected()))
        assert await read(log) == ["t-0000", "t-0010"]
        view = await stack.enter_async_context(View.open(log, Things()))
        assert [row for row in (view.get("t-0001"), view.get("t-0011")) if row is not None] == []
        assert view.get("t-0000") is not None
        assert view.damage != []


async def test_a_copy_is_protected_in_another_way_than_its_source() -> None:
    """Plain to protected, on with the copy, to another key, and back to plain: the same events, whole, each time."""
    plain, first, second, last = (MemoryStore() for _ in range(4))
    other = Protection(keyring=Keyring([OTHER_KEY]))
    await fill(plain, None, "a", "b")
    await copy_store(plain, first, target_protection=protected())
    await fill(plain, None, "c")
    await copy_store(plain, first, target_protection=protected())
    await copy_store(first, second, source_protection=protected(), target_protection=other)
    await copy_store(second, last, source_protection=other)
    for store, protection in ((first, protected()), (second, other), (last, None)):
        assert await damage(protect(store, protection)) == []
        async with logstore.open(store, read_only=True, protection=protection) as log:
            assert await read(log) == ["a", "b", "c"]
    with pytest.raises(InvalidArgument, match=r"segments of web are its own|it opens a session of web"):
        await copy_store(plain, MemoryStore(), target_protection=protected("snapper"))


def test_what_protects_nothing_or_nobody_knows_is_refused() -> None:
    """Neither keys nor trust; a signing key without trust, or of a stranger."""
    with pytest.raises(InvalidArgument, match="protects nothing"):
        Protection()
    with pytest.raises(InvalidArgument, match="a signing key needs trust"):
        Protection(keyring=KEYRING, signing_key=SIGNING_KEYS["web"])
    with pytest.raises(InvalidArgument, match="not among the trusted"):
        Protection(trust=TRUST, signing_key=SIGNING_KEYS["stranger"])


def test_a_key_does_not_both_encrypt_and_sign() -> None:
    """One file named by LOGSTORE_KEYS and LOGSTORE_SIGNING_KEY: whoever reads the store could sign as that writer."""
    both = b"both".ljust(32)
    trust = Trust((*TRUST.writers, Trusted("ops", (SigningKey(both).public,))))
    with pytest.raises(InvalidArgument, match="in the keyring, so that all who read could sign name=ops") as caught:
        Protection(Keyring([KEY, both]), trust)
    assert both.hex() not in str(caught.value)


def test_nothing_of_it_is_imported_where_nothing_is_protected() -> None:
    """A plain log loads no cryptography; a protection where that is not installed says what to install."""
    program = (
        "import sys, logstore\n"
        "assert 'cryptography' not in sys.modules\n"
        "sys.modules['cryptography'] = None\n"
        "for make in (lambda: logstore.Protection(keyring=logstore.Keyring([bytes(32)])),\n"
        "             lambda: logstore.SigningKey(bytes(32))):\n"
        "    try: make()\n"
        "    except logstore.InvalidArgument as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["needs the package cryptography; install logstore[protection]"] * 2


def test_nothing_that_is_secret_is_shown() -> None:
    """Neither a protection's repr nor that of a log tells a key."""
    protection = protected()
    shown = repr(protection) + repr(logstore.open(MemoryStore(), protection=protection))
    for secret in (b"k" * 32, b"keeper".ljust(32)):
        assert secret.hex()[:8] not in shown
        assert secret.decode() not in shown


# The tool -----------------------------------------------------------------------------------------


def tool(*arguments: str, **environment: str | Path) -> Result:
    variables = {name: str(value) for name, value in environment.items()}
    return CliRunner(env=variables).invoke(main, [*map(str, arguments)])


def test_the_tool_is_told_by_its_environment(tmp_path: Path) -> None:
    """Keys made by `key`, a store made with them: read, checked, copied into a plain one and under other keys."""
    names = ("store", "keys", "new", "signing", "trust")
    store, keys, new_keys, signing, trust = (tmp_path / name for name in names)
    assert tool("key", str(keys)).output == ""
    assert tool("key", str(new_keys)).output == ""
    public = tool("key", "--signing", str(signing)).output.strip()
    trust.write_text(f'[ops]\nkeys = ["{public}"]\nmay = "keep"\n')
    protection = {"LOGSTORE_KEYS": keys, "LOGSTORE_TRUST": trust, "LOGSTORE_SIGNING_KEY": signing}
    line = json.dumps({"kind": "K", "key": "k", "type": "t", "data": {}})
    runner = CliRunner(env={name: str(value) for name, value in protection.items()})
    assert runner.invoke(main, ["append", str(store), "--writer", "ops"], input=line).exit_code == 0
    assert '"key":"k"' in tool("cat", str(store), "--json", **protection).output
    refused = tool("cat", str(store))
    assert refused.exit_code == 2
    assert "KeyNeeded: object is encrypted key=store; give the store's keys" in refused.output
    assert tool("check", str(store), **protection).exit_code == 0
    assert tool("check", str(store)).exit_code == 1
    assert tool("copy", str(store), str(tmp_path / "plain"), "--plain", **protection).exit_code == 0
    assert '"key":"k"' in tool("cat", str(tmp_path / "plain"), "--json").output
    copied = tool("copy", str(store), str(tmp_path / "next"), **protection, LOGSTORE_TARGET_KEYS=new_keys)
    assert copied.exit_code == 0, copied.output
    assert copied.stderr.endswith(", encrypted, not signed\n")
    assert '"key":"k"' in tool("cat", str(tmp_path / "next"), "--json", LOGSTORE_KEYS=new_keys).output


def test_a_key_is_written_once_and_for_its_owner(tmp_path: Path) -> None:
    """The file is readable by nobody else, and an existing one is left as it is."""
    path = tmp_path / "keys"
    assert tool("key", str(path)).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    again = tool("key", str(path))
    assert again.exit_code == 2
    assert "never overwritten" in again.output
    assert path.read_text() == before
    assert "cannot be made" in tool("key", str(tmp_path / "none" / "keys")).output


def test_a_key_that_cannot_be_used_is_not_made(tmp_path: Path) -> None:
    """Without the package cryptography: told so, and no file is left whose public half was never shown."""
    path = tmp_path / "signing"
    program = "import sys\nsys.modules['cryptography'] = None\nfrom projections.cli import main\nmain()"
    told = subprocess.run(
        [sys.executable, "-c", program, "key", "--signing", str(path)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "install logstore[protection]" in told.stderr
    assert not path.exists()


def test_a_key_is_made_as_durable_as_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is synced, too: a power cut must not take the key of a store that outlives it."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    assert tool("key", str(tmp_path / "keys")).exit_code == 0
    assert synced == [(tmp_path / "keys").stat().st_ino, tmp_path.stat().st_ino]
