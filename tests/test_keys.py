"""Names in the bucket, as two tables (what parses, what must not), and what holds for any name."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from logstore.errors import InvalidArgument
from logstore.keys import (
    NUMBER_MAX,
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    EntryKey,
    Fold,
    Key,
    ManifestKey,
    PinKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StageGoneKey,
    StageId,
    StagePageKey,
    StoreKey,
    archive_key,
    chunk_key,
    claim_key,
    entry_key,
    escape_name,
    is_name,
    manifest_key,
    parse_key,
    pin_key,
    registration_key,
    retired_key,
    roster_prefix,
    segment_key,
    session_prefix,
    stage_gone_key,
    stage_page_key,
    stage_prefix,
    unescape_name,
)

PARSES: list[tuple[str, Key]] = [
    ("store", StoreKey()),
    ("roster/0000000000/0000000007", EntryKey(0, 7)),
    ("roster/9999999999/9999999999", EntryKey(NUMBER_MAX, NUMBER_MAX)),
    ("retired/0000000012", RetiredKey(12)),
    ("log/web%2F1/0000000000/0000000007/0000000000", SegmentKey("web/1", 0, 7, 0)),
    ("log/web-1_a.b~c/0000000001/0000000002/0000000003", SegmentKey("web-1_a.b~c", 1, 2, 3)),
    ("log/%2E/0000000000/0000000000/0000000000", SegmentKey(".", 0, 0, 0)),
    ("log/%2E./0000000000/0000000000/0000000000", SegmentKey("..", 0, 0, 0)),
    ("log/%2E./0000000000/0000000000/9999999999", SegmentKey("..", 0, 0, NUMBER_MAX)),
    ("log/%C3%A9/0000000000/0000000000/0000000000", SegmentKey("é", 0, 0, 0)),
    ("log/%00%0A%20%25/0000000000/0000000000/0000000000", SegmentKey("\x00\n %", 0, 0, 0)),
    ("log/" + "a" * 200 + "/0000000000/0000000000/0000000000", SegmentKey("a" * 200, 0, 0, 0)),
    ("log/" + "%2F" * 85 + "/0000000000/0000000000/0000000000", SegmentKey("/" * 85, 0, 0, 0)),
]
POINT = "0000000002-0000000007"
FOLD = Fold("web/1", 3, bytes.fromhex("00112233445566ff"))
FOLD_TEXT = "snapshots/web%2F1/0000000003/00112233445566ff"
PARSES += [
    (f"{FOLD_TEXT}/manifest/{POINT}", ManifestKey(FOLD, 2, 7)),
    (f"{FOLD_TEXT}/registration/0000000004", RegistrationKey(FOLD, 4)),
    (f"chunks/{POINT}-{'0f' * 32}", ChunkKey(2, 7, bytes([15]) * 32)),
    ("archive/0000000003/00112233445566ff/0000000001", ArchiveKey(3, bytes.fromhex("00112233445566ff"), 1)),
    ("pins/00112233445566ff/0000000009", PinKey(bytes.fromhex("00112233445566ff"), 9)),
    ("claims/Deploy%2Fment/d%201/0000000002", ClaimKey("Deploy/ment", "d 1", 2)),
]
STAGE, STAGE_TEXT = StageId("d/1", "a b", 3), "stagelogs/d%2F1/a%20b/0000000003"
PARSES += [
    (f"{STAGE_TEXT}/0000000007", StagePageKey(STAGE, 7)),
    (f"{STAGE_TEXT}/gone", StageGoneKey(STAGE)),
    ("stagelogs/gone/gone/0000000000/gone", StageGoneKey(StageId("gone", "gone", 0))),
]
NUMBERS = "/0000000000/0000000000/0000000000"
FOREIGN = [
    *("", "/", "stor", "store/", "/store", "Store", "store ", "store\n", "stores", "store/0000000000"),
    *("roster", "roster/", "roster/0/7", "roster/0000000000", "roster/0000000000/", "roster/0000000000/7"),
    *("roster/0000000000/00000000007", "roster/000000000/0000000007", "roster/0000000000/0000000007/"),
    *("roster/0000000000/000000000a", "roster/0000000000/-000000007", "roster/0000000000/+000000007"),
    *("roster/0000000000/ 000000007", "roster/0000000000/000000007\n", "roster/0000000000/00_0000007"),
    *("roster/0000000000/٠٠٠٠٠٠٠٠٠٧", "roster/0000000000/000000000²", "roster//0000000000/0000000007"),
    *("Roster/0000000000/0000000007", "roster/0000000000/0000000007.json", "tmp/roster/0000000000/0000000007"),
    *("retired", "retired/", "retired/0", "retired/0000000000/", "retired/0000000000/0000000000"),
    *("log", "log/", "log/web", "log/web/1/0000000000/0000000000", "log/web/1/0000000000/0000000007/0000000000"),
    *("log/web/0000000000/0000000007", "log/web/0000000000/0000000007/", "log//0000000000/0000000007/0000000000"),
    "log/web/0000000000/0000000007/0000000000/0000000000",
    *(f"log/{writer}{NUMBERS}" for writer in ("web%2f1", "web%", "web%2", "web%zz", "%77eb", "%2D", "web 1", "web+1")),
    *(f"log/{writer}{NUMBERS}" for writer in (".", "..", ".hidden", "é", "%ff", "%C3", "%FF", "%ED%A0%80", "a\x00")),
    *(f"log/{writer}{NUMBERS}" for writer in ("a" * 201, "%2F" * 86, "%C3%A9" * 101, "\udcff", "a\\b", "a*")),
    *("archive/0000000000/n/0", "snapshots/p/1/m", "chunks/1-2", "pins/x/0", "claims/k/k/0", "stagelogs/x"),
    *(f"{FOLD_TEXT}/manifest/{end}" for end in ("", "0", "0000000002", f"{POINT}-0", f"{POINT}/", "2-7", POINT[:-1])),
    *(f"{FOLD_TEXT}/registration/{end}" for end in ("", "4", POINT)),
    *(f"{FOLD_TEXT}/{end}" for end in ("", "manifest", f"manifests/{POINT}", POINT)),
    *(f"snapshots/{fold}/manifest/{POINT}" for fold in ("p/3/00112233445566ff", "p/0000000003/00112233445566FF")),
    *(f"snapshots/{fold}/manifest/{POINT}" for fold in ("/0000000003/00112233445566ff", "p/0000000003/0011223344556")),
    f"snapshots/p/0000000000/00112233445566ff/manifest/{POINT}",
    *(f"chunks/{end}" for end in ("", POINT, f"{POINT}-", f"{POINT}-{'0f' * 31}", f"{POINT}-{'0F' * 32}")),
    *(f"chunks/{end}" for end in ("0f" * 32, f"{POINT}-{'0f' * 32}/", f"{POINT}-{'0f' * 33}", f"{POINT}{'0f' * 32}")),
    *(f"archive/{end}" for end in ("", "0000000003", "0000000003/00112233445566FF/0000000001")),
    *(f"archive/{end}" for end in ("3/00112233445566ff/0000000001", "0000000003/00112233445566/0000000001")),
    *(f"{STAGE_TEXT}/{end}" for end in ("", "7", "Gone", "gone/", "gone/0000000000", "0000000007/", "gon", "%67one")),
    *("stagelogs/d/s/gone", "stagelogs/d/s/0000000003", "stagelogs/d/s/3/0000000007", "stagelogs//s/0000000003/gone"),
    *("stagelogs/d/../0000000003/gone", "stagelogs/d/s/t/0000000003/gone", "stagelogs/d/é/0000000003/0000000007"),
    *(f"pins/{end}" for end in ("", "00112233445566ff", "00112233445566ff/9", "00112233445566ff/0000000009/")),
    *(f"claims/{end}" for end in ("", "k", "k/d", "k/d/2", "k//0000000002", "k/d/0000000002/", "k/d 1/0000000002")),
    *("tmp/123", "probe/abc/0", ".DS_Store", "lost+found/x", "..", "../store"),
]


@pytest.mark.parametrize(("text", "key"), PARSES)
def test_names_that_parse(text: str, key: Key) -> None:
    """Each name of FORMAT §1 parses to its numbers and its writer, and is built from them again."""
    assert parse_key(text) == key
    assert build(key) == text


@pytest.mark.parametrize("text", FOREIGN, ids=ascii)
def test_names_that_must_not_parse(text: str) -> None:
    """What no function of the module builds is foreign, however near it comes."""
    assert parse_key(text) is None


def build(key: Key) -> str:
    match key:
        case StoreKey():
            return "store"
        case EntryKey(chapter, number):
            return entry_key(chapter, number)
        case RetiredKey(chapter):
            return retired_key(chapter)
        case SegmentKey(writer, chapter, session, slot):
            return segment_key(writer, chapter, session, slot)
        case ManifestKey():
            return manifest_key(key)
        case RegistrationKey():
            return registration_key(key)
        case ChunkKey():
            return chunk_key(key)
        case ArchiveKey():
            return archive_key(key)
        case PinKey():
            return pin_key(key)
        case ClaimKey():
            return claim_key(key)
        case StagePageKey():
            return stage_page_key(key)
        case StageGoneKey(stage):
            return stage_gone_key(stage)


numbers = st.integers(0, NUMBER_MAX)
names = st.text(min_size=1, max_size=40) | st.text("./%\\\x00~-_ é", min_size=1, max_size=40)
folds = st.builds(Fold, names.filter(is_name), st.integers(1, NUMBER_MAX), st.binary(min_size=8, max_size=8))
stages = st.builds(StageId, names.filter(is_name), names.filter(is_name), numbers)
keys = (
    st.builds(EntryKey, numbers, numbers)
    | st.builds(RetiredKey, numbers)
    | st.builds(SegmentKey, names.filter(is_name), numbers, numbers, numbers)
    | st.builds(ManifestKey, folds, numbers, numbers)
    | st.builds(RegistrationKey, folds, numbers)
    | st.builds(ChunkKey, numbers, numbers, st.binary(min_size=32, max_size=32))
    | st.builds(ArchiveKey, numbers, st.binary(min_size=8, max_size=8), numbers)
    | st.builds(PinKey, st.binary(min_size=8, max_size=8), numbers)
    | st.builds(StagePageKey, stages, numbers)
    | st.builds(StageGoneKey, stages)
)


@given(keys)
def test_what_is_built_parses(key: Key) -> None:
    """Parsing is the reverse of building, for every key."""
    assert parse_key(build(key)) == key


@given(
    st.text(max_size=60)
    | st.sampled_from([text for text, _ in PARSES]).flatmap(lambda t: st.permutations(list(t)).map("".join))
)
def test_what_parses_is_what_is_built(text: str) -> None:
    """No two names parse to one key: a name that parses is the one that is built."""
    key = parse_key(text)
    assert key is None or build(key) == text


@given(names, numbers, numbers, numbers)
def test_a_name_cannot_leave_its_prefix(name: str, chapter: int, session: int, slot: int) -> None:
    """Whatever a writer is called, its objects' names are five plain path segments, the first of them ``log``."""
    assume(is_name(name))
    parts = segment_key(name, chapter, session, slot).split("/")
    assert len(parts) == 5
    assert parts[0] == "log"
    assert parts[1] not in {"", ".", ".."}
    assert not parts[1].startswith(".")
    assert set(parts[1]) <= set(string.ascii_letters + string.digits + "-_.~%")
    assert len(parts[1]) <= 255
    assert segment_key(name, chapter, session, slot).startswith(session_prefix(name, chapter, session))
    assert unescape_name(parts[1]) == name


@given(names, names)
def test_different_names_have_different_prefixes(one: str, other: str) -> None:
    """Two writers share a prefix only if they have one name, and no prefix is the beginning of another."""
    assume(is_name(one) and is_name(other) and one != other)
    assert not session_prefix(one, 0, 0).startswith(session_prefix(other, 0, 0))
    assert not session_prefix(one, 0, 0).startswith(session_prefix(other, 0, 0).removesuffix("0000000000/0000000000/"))


@given(stages, stages, numbers, numbers)
def test_a_stage_log_is_listed_by_itself(one: StageId, other: StageId, number: int, next_number: int) -> None:
    """Its pages come by number, its record behind them, and nothing of another stage log between them."""
    assume(one != other)
    names = [stage_page_key(StagePageKey(one, at)) for at in sorted({number, next_number})] + [stage_gone_key(one)]
    listed = sorted([*names, stage_gone_key(other), stage_page_key(StagePageKey(other, number))])
    assert [name for name in listed if name.startswith(stage_prefix(one))] == names
    first = listed.index(names[0])
    assert listed[first : first + len(names)] == names


@given(st.tuples(numbers, numbers), st.tuples(numbers, numbers))
def test_byte_order_is_number_order(one: tuple[int, int], other: tuple[int, int]) -> None:
    """Listing a roster gives its entries in the order of their numbers."""
    assert (entry_key(*one).encode() < entry_key(*other).encode()) == (one < other)
    assert entry_key(*one).startswith(roster_prefix(one[0]))


@pytest.mark.parametrize("name", ["", "a" * 201, "é" * 101, "\ud800", "/" * 86], ids=ascii)
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    """The refusal says which argument it is about."""
    with pytest.raises(InvalidArgument, match="writer="):
        escape_name(name, "writer")
    assert not is_name(name)


@pytest.mark.parametrize("number", [-1, NUMBER_MAX + 1])
def test_numbers_that_do_not_fit_are_our_mistake(number: int) -> None:
    """Nothing of ten digits is ever built from a number that has more, or a sign."""
    with pytest.raises(AssertionError):
        entry_key(0, number)
