"""What a write makes of a document, and what of many: RFC 0009 §2, §3, §5 and §6, without a log."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import Event
from logstore.errors import Corrupt, InvalidArgument
from logstore.event import Data
from projections import Collection, Index, Rejected
from projections.document import (
    OVERDUE,
    Absent,
    Claimed,
    Present,
    Version,
    Write,
    claim_of,
    inside,
    version_of,
)
from projections.patch import is_same, merge_patch, patch_between, thawed, touches
from projections.tombstone import Tombstone
from tests.written import History, claimed, stored, written

CREATE, UPDATE, DELETE = Write("create"), Write("update"), Write("delete")
DOC = Collection("Doc")
UNIQUE = Collection("Doc", unique=True)


def judged(before: Data | None, write: Write, data: Data | None = None, *, by: Collection = DOC, **more: str) -> Any:
    return by.judge(before, more.get("version", "1-00"), write, data, more.get("writer", "web"))


# Patches: RFC 7396


VECTORS: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), VECTORS, ids=repr)
def test_patches_are_json_merge_patches(target: Any, patch: Any, result: Any) -> None:
    """The fifteen examples of RFC 7396, appendix A; nothing given is changed."""
    given_, asked = copy.deepcopy(target), copy.deepcopy(patch)
    assert merge_patch(target, patch) == result
    assert (target, patch) == (given_, asked)


_SCALARS = st.one_of(
    st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, -0.0, 1.0, 0.5]), st.sampled_from(["", "a", b"", b"a"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
_DOCUMENTS = st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3)
_WITH_NULLS = st.dictionaries(st.sampled_from("abc"), _VALUES | st.none(), max_size=3)


@given(before=_WITH_NULLS, after=_DOCUMENTS)
def test_the_patch_between_two_documents_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    """For all documents without a null in the later one: merged in, the patch makes it, to the type of each number."""
    assert is_same_tree(merge_patch(before, patch_between(before, after)), after)


@given(document=_WITH_NULLS)
def test_nothing_changed_is_no_patch(document: Any) -> None:
    """Also where there are nulls, and for a copy."""
    assert patch_between(document, thawed(document)) == {}


@given(before=_DOCUMENTS, after=_DOCUMENTS, other=_DOCUMENTS)
def test_a_patch_holds_what_has_changed_and_nothing_else(before: Any, after: Any, other: Any) -> None:
    """A top field that was left alone is not in the patch, so another's change of it is not undone."""
    patch = patch_between(before, after)
    assert set(patch) == {
        name
        for name in {*before, *after}
        if not (name in before and name in after and is_same_tree(before[name], after[name]))
    }
    merged = merge_patch(merge_patch(before, other), patch)
    for name in other.keys() - patch.keys():
        assert is_same_tree(merged[name], merge_patch(before, other)[name])


def is_same_tree(one: Any, other: Any) -> bool:
    """Equal, and of equal types all through; the order of a map's names does not count."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same_tree(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(is_same_tree, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def test_a_field_that_became_null_is_removed_by_the_patch() -> None:
    """A document keeps a null only if created with it."""
    assert patch_between({"a": 1}, {"a": None}) == {"a": None}
    assert merge_patch({"a": 1}, {"a": None}) == {}
    assert judged(None, CREATE, {"a": None}) == {"a": None}
    assert judged({"a": None, "b": 1}, UPDATE, {"b": 2}) == {"a": None, "b": 2}


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (0, False), (1, 1.0), (True, 1.0), (0.0, -0.0), ("a", b"a"), (None, False), ({}, [])]
)
def test_values_are_the_same_when_they_are_stored_alike(one: Any, other: Any) -> None:
    """1 is neither True nor 1.0, alone or within others; each is the same as itself."""
    for wrap in (lambda value: value, lambda value: [value], lambda value: {"x": {"y": value}}):
        assert not is_same(wrap(one), wrap(other))
        assert is_same(wrap(one), wrap(copy.deepcopy(one)))
    assert is_same([1, "a"], (1, "a"))
    assert patch_between({"a": one}, {"a": other}) == {"a": other}


@pytest.mark.parametrize("value", [2**70, {1, 2}, object(), "\ud800", 1j])
def test_a_value_that_cannot_be_stored_is_the_same_as_no_other(value: Any) -> None:
    """So it gets into the patch, where the append refuses it with the document's name."""
    assert not is_same(1, value)
    assert patch_between({"a": 1}, {"a": value}) == {"a": value}


@pytest.mark.parametrize(
    ("patch", "path", "is_touched"),
    [
        ({"sync": {"status": 1}}, "sync.status", True),
        ({"sync": {"status": None}}, "sync.status", True),
        ({"sync": {"status": {"deep": 1}}}, "sync.status", True),
        ({"sync": None}, "sync.status", True),
        ({"sync": 5}, "sync.status", True),
        ({"sync": []}, "sync.status", True),
        ({"sync": {"other": 1}}, "sync.status", False),
        ({"sync": {}}, "sync.status", False),
        ({"status": 1}, "sync.status", False),
        ({}, "sync.status", False),
        ({"sync": {"other": 1}}, "sync", True),
        ({"sync.status": 1}, "sync.status", False),
    ],
)
def test_a_patch_touches_a_field_by_its_parts_and_by_what_holds_it(patch: Any, path: str, is_touched: bool) -> None:
    """Owners hold for nested paths and against replacing a parent; a name with a dot in it is another field."""
    assert touches(patch, tuple(path.split("."))) is is_touched


@given(patch=_WITH_NULLS, document=_WITH_NULLS, path=st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
def test_what_a_patch_does_not_touch_it_does_not_change(patch: Any, document: Any, path: list[str]) -> None:
    """An owned field is the same after any patch of which ``touches`` says no."""

    def at(tree: Any) -> Any:
        for name in path:
            if not isinstance(tree, Mapping) or name not in tree:
                return "absent"
            tree = tree[name]
        return ["there", tree]

    if not touches(patch, tuple(path)):
        assert is_same_tree(at(merge_patch(document, patch)), at(document))


def test_a_copy_can_be_changed_and_changes_nothing() -> None:
    """``thawed``: maps and lists all through are new."""
    frozen = stored(Event("Doc", "d", "t", {"a": [{"b": [1]}], "c": {}}), 1).data
    copied = thawed(frozen)
    copied["a"][0]["b"].append(2)
    copied["c"]["x"] = 1
    assert copied == {"a": [{"b": [1, 2]}], "c": {"x": 1}}
    assert frozen == {"a": ({"b": (1,)},), "c": {}}


# One write: Collection.judge


def test_a_write_needs_the_document_it_expects() -> None:
    """Create where there is none, update and delete where there is one."""
    assert judged(None, CREATE, {"a": 1}) == {"a": 1}
    assert judged({"a": 1}, UPDATE, {"b": 2}) == {"a": 1, "b": 2}
    assert judged({"a": 1}, DELETE) is None
    with pytest.raises(Present):
        judged({}, CREATE, {"a": 1})
    for write in (UPDATE, DELETE):
        with pytest.raises(Absent):
            judged(None, write, {"a": 1})


def test_a_version_is_compared_as_it_stands() -> None:
    """``if_version`` that is another one is a refusal that names both."""
    for write in (Write("update", if_version="2-aa"), Write("delete", if_version="2-aa")):
        judged({}, write, {}, version="2-aa")
        with pytest.raises(Rejected, match="its version is 3-bb, not 2-aa"):
            judged({}, write, {}, version="3-bb")


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ([("status", "==", 0)], True),
        ([("status", "==", 1)], False),
        ([("status", "<", 1), ("owner.name", "==", "ann")], True),
        ([("status", "<", 1), ("owner.name", "!=", "ann")], False),
        ([("missing", "==", None)], True),
        ([("tags", "contains", "b")], True),
        ([("status", "in", [1, 2])], False),
        ([], True),
    ],
)
def test_all_clauses_of_when_must_hold(when: Any, holds: bool) -> None:
    """They mean what they mean in ``find``, on the document, nested fields included; stored and read back, too."""
    document = {"status": 0, "owner": {"name": "ann"}, "tags": ["a", "b"]}
    for write in (Write("update", when=when), Write("delete", when=when)):
        there_and_back = Write.parse(stored(written(write), 1).meta)
        for each in (write, there_and_back):
            if holds:
                judged(document, each, {"x": 1})
            else:
                with pytest.raises(Rejected, match="it does not hold that"):
                    judged(document, each, {"x": 1})


def test_a_set_in_a_clause_is_stored_as_a_list() -> None:
    """``when`` takes what ``find`` takes: a set of values, too."""
    write = Write.parse(stored(written(Write("update", when=[("status", "in", {1, 2})])), 1).meta)
    assert judged({"status": 1}, write, {"x": 1}) == {"status": 1, "x": 1}
    with pytest.raises(Rejected):
        judged({"status": 3}, write, {"x": 1})


def test_the_guard_sees_before_and_after_and_has_the_last_word() -> None:
    """For create, update and delete; what it raises is what is told."""
    seen: list[tuple[Data | None, Data | None]] = []

    def guard(before: Data | None, after: Data | None) -> None:
        seen.append((before, after))
        if after is not None and after["n"] < 0:
            raise Rejected("below zero")

    guarded = Collection("Doc", guard=guard)
    judged(None, CREATE, {"n": 1}, by=guarded)
    judged({"n": 1}, UPDATE, {"n": 2}, by=guarded)
    judged({"n": 2}, DELETE, by=guarded)
    assert seen == [(None, {"n": 1}), ({"n": 1}, {"n": 2}), ({"n": 2}, None)]
    with pytest.raises(Rejected, match="below zero"):
        judged({"n": 2}, UPDATE, {"n": -1}, by=guarded)


def test_the_checks_come_in_the_order_of_the_rfc() -> None:
    """Existence, version, clauses, owners, guard: the first that fails is told."""

    def guard(before: Data | None, after: Data | None) -> None:
        raise Rejected("the guard")

    collection = Collection("Doc", owners={"sync": "piped"}, guard=guard)
    all_wrong = Write("update", if_version="9-99", when=[("a", "==", 9)])
    one_right = Write("update", if_version="1-00", when=[("a", "==", 9)])
    two_right = Write("update", if_version="1-00", when=[("a", "==", 1)])
    for before, write, data, writer, told in [
        (None, all_wrong, {"sync": 1}, "web", "no such document"),
        ({"a": 1}, all_wrong, {"sync": 1}, "web", "its version is"),
        ({"a": 1}, one_right, {"sync": 1}, "web", "does not hold"),
        ({"a": 1}, two_right, {"sync": 1}, "web", "written by piped"),
        ({"a": 1}, two_right, {"sync": 1}, "piped", "the guard"),
    ]:
        with pytest.raises(Rejected, match=told):
            judged(before, write, data, by=collection, writer=writer)


OWNED = Collection("Doc", owners={"sync": "piped-*", "info.host": "web", "info.[x]": "ops?"})


@pytest.mark.parametrize(
    ("writer", "patch", "is_allowed"),
    [
        ("piped-1", {"sync": {"status": 1}}, True),
        ("piped", {"sync": 1}, False),
        ("PIPED-1", {"sync": 1}, False),
        ("web", {"sync": {"status": 1}}, False),
        ("web", {"info": {"host": "h"}}, True),
        ("piped-1", {"info": {"host": "h"}}, False),
        ("piped-1", {"info": {"port": 1}}, True),
        ("piped-1", {"info": None}, False),
        ("piped-1", {"info": 5}, False),
        ("web", {"info": None}, False),
        ("ops1", {"info": {"[x]": 1}}, True),
        ("ops", {"info": {"[x]": 1}}, False),
        ("piped-1", {"sync": 1, "info": {"host": "h"}}, False),
        ("anybody", {"other": 1}, True),
    ],
)
def test_only_owners_write_their_fields(writer: str, patch: Data, is_allowed: bool) -> None:
    """Names match as in fnmatch, in both cases; nested fields count, replaced parents too; a write is refused whole."""
    before = {"sync": {"status": 0}, "info": {"host": "a", "port": 0}}
    for write, base in ((UPDATE, before), (CREATE, None)):
        if is_allowed:
            judged(base, write, patch, by=OWNED, writer=writer)
        else:
            with pytest.raises(Rejected, match="is written by"):
                judged(base, write, patch, by=OWNED, writer=writer)
    assert before == {"sync": {"status": 0}, "info": {"host": "a", "port": 0}}


def test_importers_create_documents_whole() -> None:
    """With fields that others own, of several owners too; they update as everybody does, and a guard is heard."""

    def guard(before: Data | None, after: Data | None) -> None:
        if (after or {}).get("sync") == "bad":
            raise Rejected("the guard")

    owners = {"sync": "piped-*", "info.host": "web"}
    collection = Collection("Doc", owners=owners, importers="import-?", guard=guard)
    whole = {"sync": 1, "info": {"host": "h"}}
    assert judged(None, CREATE, whole, by=collection, writer="import-1") == whole
    refused: list[tuple[Data | None, Write, Data, str, str]] = [
        (None, CREATE, whole, "import", "is written by"),
        (None, CREATE, whole, "piped-1", "is written by"),
        (whole, UPDATE, {"sync": 2}, "import-1", "sync is written by"),
        (None, CREATE, {"sync": "bad"}, "import-1", "the guard"),
    ]
    for before, write, data, writer, told in refused:
        with pytest.raises(Rejected, match=told):
            judged(before, write, data, by=collection, writer=writer)


def test_older_data_is_brought_up_before_it_is_judged() -> None:
    """Documents and patches of a lower schema go through upcast; those of this one, or of a higher one, do not."""
    asked: list[int] = []

    def upcast(data: Data, version: int) -> Data:
        asked.append(version)
        return {("name" if name == "title" else name): value for name, value in data.items()}

    collection = Collection("Doc", version=3, upcast=upcast, owners={"name": "web"})
    assert judged(None, Write("create", 1), {"title": "a"}, by=collection) == {"name": "a"}
    assert judged({"name": "a"}, Write("update", 2), {"title": None}, by=collection) == {}
    assert judged({"name": "a"}, Write("update", 3), {"title": "b"}, by=collection) == {"name": "a", "title": "b"}
    assert judged({"name": "a"}, Write("update", 4), {"title": "b"}, by=collection) == {"name": "a", "title": "b"}
    assert asked == [1, 2]
    with pytest.raises(Rejected, match="name is written by web"):
        judged({"name": "a"}, Write("update", 1), {"title": "b"}, by=collection, writer="piped")


def test_judging_changes_nothing_that_was_given() -> None:
    """Neither the document nor the patch, also where nested maps are merged."""
    before, patch = {"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}
    after = judged(before, UPDATE, patch)
    assert after == {"a": {"b": {"c": 1, "d": 2}}}
    assert (before, patch) == ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}})


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": ""},
        {"kind": "a/b" * 100},
        {"kind": 5},
        {"kind": "Doc", "version": 0},
        {"kind": "Doc", "version": True},
        {"kind": "Doc", "version": "1"},
        {"kind": "Doc", "owners": {"a..b": "web"}},
        {"kind": "Doc", "owners": {"": "web"}},
        {"kind": "Doc", "importers": ""},
        {"kind": "Doc", "importers": ["import"]},
    ],
)
def test_a_collection_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    """A kind that is no name, a version that is none, an owned field that is no field."""
    with pytest.raises(InvalidArgument):
        Collection(**arguments)


def test_a_collection_is_a_projection_of_its_kind() -> None:
    """Name, kinds, version, and indexes on the document's fields, whatever their direction."""
    collection = Collection("Doc", version=4, indexes=[Index("project.id", "-at")])
    fold = collection.fold()
    fold.check()
    assert (fold.name, fold.version, fold.kinds, fold.tombstones) == ("Doc", 4, {"Doc"}, False)
    assert fold.indexes == (Index("doc.project.id", "-doc.at"),)
    assert (inside("a.b"), inside("-a")) == ("doc.a.b", "-doc.a")
    assert fold.registration() != UNIQUE.fold().registration(), "no snapshot of one is one of the other"
    assert UNIQUE.fold().tombstones


# What an event says it is: Write.parse


@pytest.mark.parametrize(
    "write",
    [
        CREATE,
        Write("create", 3, claim=Claimed(4, 5, "web")),
        Write("update", 2, if_version="3-aa", when=(("a", "==", 1), ("b", "in", (1, 2)))),
        Write("delete", 1, if_version="1-bb"),
    ],
)
def test_a_write_is_read_back_as_it_was(write: Write) -> None:
    """Through an event's meta, beside the caller's own."""
    event = stored(Event("Doc", "d", "x", {}, {"actor": "ann", **write.meta()}), 1)
    assert Write.parse(event.meta) == write


NONSENSE: list[Any] = [
    None,
    {},
    {"document": None},
    {"document": "create"},
    {"document": ["create", 1]},
    {"document": {}},
    {"document": {"do": "create"}},
    {"document": {"schema": 1}},
    {"document": {"do": "destroy", "schema": 1}},
    {"document": {"do": "", "schema": 1}},
    {"document": {"do": ["create"], "schema": 1}},
    {"document": {"do": "create", "schema": 0}},
    {"document": {"do": "create", "schema": -1}},
    {"document": {"do": "create", "schema": True}},
    {"document": {"do": "create", "schema": 1.0}},
    {"document": {"do": "create", "schema": "1"}},
    {"document": {"do": "create", "schema": 1, "claim": 5}},
    {"document": {"do": "create", "schema": 1, "claim": []}},
    {"document": {"do": "create", "schema": 1, "claim": [0, 1]}},
    {"document": {"do": "create", "schema": 1, "claim": [0, 1, 2]}},
    {"document": {"do": "create", "schema": 1, "claim": ["0", 1, "web"]}},
    {"document": {"do": "create", "schema": 1, "claim": [0, 1.5, "web"]}},
    {"document": {"do": "create", "schema": 1, "claim": [-1, 1, "web"]}},
    {"document": {"do": "create", "schema": 1, "claim": [True, 1, "web"]}},
    {"document": {"do": "create", "schema": 1, "claim": "abc"}},
    {"document": {"do": "create", "schema": 1, "claim": {"number": 0}}},
    {"document": {"do": "update", "schema": 1, "if_version": 5}},
    {"document": {"do": "update", "schema": 1, "if_version": ["1-00"]}},
    {"document": {"do": "update", "schema": 1, "when": 5}},
    {"document": {"do": "update", "schema": 1, "when": "a == 1"}},
    {"document": {"do": "update", "schema": 1, "when": {"a": 1}}},
    {"document": {"do": "update", "schema": 1, "when": [5]}},
    {"document": {"do": "update", "schema": 1, "when": [["a", "=="]]}},
    {"document": {"do": "update", "schema": 1, "when": [["a", "~", 1]]}},
    {"document": {"do": "update", "schema": 1, "when": [["", "==", 1]]}},
    {"document": {"do": "update", "schema": 1, "when": [[5, "==", 1]]}},
    {"document": {"do": "update", "schema": 1, "when": [["a", "in", 1]]}},
]


@pytest.mark.parametrize("meta", NONSENSE, ids=repr)
@pytest.mark.parametrize("collection", [DOC, UNIQUE], ids=["shared", "unique"])
def test_an_event_that_is_no_write_is_rejected(collection: Collection, meta: Any) -> None:
    """RFC 0009 §2: an event of the kind without a ``document`` of this form is a no-op, told as rejected."""
    for created in (False, True):
        history = History(collection)
        if created:
            history.take(claimed(0, 1_000, {"n": 1}))
        row = history.row
        history.take(Event("Doc", "d", "changed", {"n": 2}, meta))
        assert history.row == row
        assert history.refused[-1], "told"


@pytest.mark.parametrize("do", ["create", "update"])
def test_a_write_without_data_is_rejected(do: Any) -> None:
    """Only a deletion has none."""
    history = History(DOC).take(written(CREATE, {"n": 1})) if do == "update" else History(DOC)
    row = history.row
    assert history.take(written(Write(do), None)).row == row
    assert history.refused[-1] == "nothing to write"


# Versions


PLACES = st.tuples(st.integers(0, 2**64 - 1), *[st.integers(0, 5)] * 3)


@given(one=st.lists(PLACES, max_size=4), other=st.lists(PLACES, max_size=4))
def test_equal_versions_mean_that_the_same_writes_made_the_document(one: Any, other: Any) -> None:
    """Two histories of places have one version exactly when they are one history."""

    def version(places: Any) -> str:
        made = Version(0, b"")
        for place in places:
            made = made.after(place)
        return str(made)

    assert (version(one) == version(other)) == (one == other)
    assert version(one).startswith(f"{len(one)}-")


def test_a_refused_write_is_no_part_of_the_version() -> None:
    """Nor is a copy, which is ignored."""
    create, update = claimed(0, 1_000, {"n": 1}), written(UPDATE, {"n": 2})
    plain = History(UNIQUE).take(create, 1).take(update, 5)
    noisy = History(UNIQUE).take(create, 1)
    noisy.take(written(Write("update", if_version="9-9"), {"n": 3}), 2).take(create, 3).take(written(CREATE, {}), 4)
    noisy.take(update, 5)
    assert version_of(noisy.row) == version_of(plain.row)
    assert version_of(plain.row).startswith("2-")


def test_a_late_write_below_makes_another_version() -> None:
    """Though the count stays the same: one slipped in, another became a no-op."""
    create = written(CREATE, {"n": 0})
    late = History(DOC).take(create, 1).take(written(UPDATE, {"n": 1}), 2)
    version = version_of(late.row)
    guarded = written(Write("update", when=[("n", "==", 0)]), {"n": 2})
    other = History(DOC).take(create, 1).take(guarded, 3)
    assert version_of(other.row)[:2] == version[:2] == "2-"
    assert version_of(other.row) != version


def test_a_document_created_again_has_another_version() -> None:
    """It counts from one, and no version of before is met again."""
    history = History(DOC).take(written(CREATE, {"n": 0}))
    first = version_of(history.row)
    history.take(written(DELETE)).take(written(CREATE, {"n": 0}))
    assert version_of(history.row).startswith("1-")
    assert version_of(history.row) != first


def test_a_row_that_is_none_is_damage() -> None:
    """Not a wrong answer, and not a riddle."""
    with pytest.raises(Corrupt, match="not a document's row"):
        version_of({"doc": {}, "at": [1, "text"]})


def test_if_version_holds_in_the_fold() -> None:
    """Compare-and-set: of two that saw the same version the first has an effect."""
    history = History(DOC).take(written(CREATE, {"n": 0}))
    seen = version_of(history.row)
    history.take_all([written(Write("update", if_version=seen), {"n": n}) for n in (1, 2)])
    assert history.doc == {"n": 1}
    assert history.refused[1] is None
    assert history.refused[2] is not None


# Claims, in the fold


def test_copies_of_a_claimed_creation_have_one_effect() -> None:
    """The first in order counts, whoever appended it; the others change nothing, and nobody is told."""
    history = History(UNIQUE).take(claimed(0, 1_000, {"n": 1}, claimant="web"), writer="helper")
    row = history.row
    for writer in ("web", "helper", "other"):
        history.take(claimed(0, 1_000, {"n": 1}, claimant="web"), writer=writer)
    assert history.row == row
    assert history.refused == [None] * 4
    history.take(written(UPDATE, {"n": 2})).take(claimed(0, 1_000, {"n": 1}))
    assert history.doc == {"n": 2}


def test_a_helpers_copy_is_judged_as_the_claimants() -> None:
    """Owners: who claimed created it, not who appended it."""
    collection = Collection("Doc", unique=True, owners={"secret": "web"})
    history = History(collection).take(claimed(0, 1_000, {"secret": 1}, claimant="web"), writer="helper")
    assert history.doc == {"secret": 1}
    history = History(collection).take(claimed(0, 1_000, {"secret": 1}, claimant="thief"), writer="web")
    assert history.doc is None


def test_nothing_above_its_last_stamp_counts() -> None:
    """At it, it does."""
    assert History(UNIQUE).take(claimed(0, 100, {"n": 1}), 100).doc == {"n": 1}
    late = History(UNIQUE).take(claimed(0, 100, {"n": 1}), 101)
    assert (late.doc, late.refused) == (None, [OVERDUE])


def test_a_document_deleted_before_its_claims_last_stamp_leaves_a_tombstone() -> None:
    """A late copy does not create it again; the next claim does."""
    history = History(UNIQUE).take(claimed(0, 100, {"n": 1}), 10).take(written(DELETE), 100)
    assert isinstance(history.row, Tombstone)
    assert history.row.until == 100
    assert claim_of(history.row) == 0
    assert history.take(claimed(0, 100, {"n": 1}), 100).doc is None
    assert history.refused == [None, None, None]
    assert history.take(claimed(1, 200, {"n": 2}), 100).doc == {"n": 2}
    assert claim_of(history.row) == 1


def test_a_later_deletion_leaves_nothing() -> None:
    """Above its last stamp no copy counts, so nothing needs to be known."""
    history = History(UNIQUE).take(claimed(0, 100, {"n": 1}), 10).take(written(DELETE), 101)
    assert history.row is None
    assert claim_of(history.row) == -1
    assert history.take(claimed(0, 100, {"n": 1}), 102).refused[-1] == OVERDUE


def test_a_tombstone_is_no_document() -> None:
    """Nobody updates or deletes it."""
    for write in (UPDATE, DELETE):
        history = History(UNIQUE).take(claimed(0, 100, {"n": 1}), 10).take(written(DELETE), 11)
        history.take(written(write, {"n": 2}), 12)
        assert history.doc is None
        assert history.refused[-1] == Absent.REASON


def test_what_becomes_of_an_event_above_the_last_stamp_does_not_depend_on_the_tombstone() -> None:
    """P8: whether a tombstone was still there depends on how the watermark rose; what is told may not."""
    for event in (claimed(0, 100, {"n": 1}), claimed(1, 300, {"n": 2})):
        with_it = History(UNIQUE).take(claimed(0, 100, {"n": 1}), 10).take(written(DELETE), 11).take(event, 200)
        without = History(UNIQUE).take(event, 200)
        assert with_it.refused[-1] == without.refused[-1]
        assert with_it.doc == without.doc


def test_no_copy_of_an_earlier_claim_counts_after_a_later_one_was_deleted() -> None:
    """Also where the later claim was decided by a slower clock, and is over before the earlier one.

    A claims by a clock that is ahead, and sleeps; B appends in its stead and deletes; C claims by a clock that is
    right, creates and deletes. Then A wakes up, within its claim.
    """
    history = History(UNIQUE)
    history.take(claimed(0, 104, {"n": 1}, claimant="a"), 10, writer="b").take(written(DELETE), 11)
    history.take(claimed(1, 101, {"n": 2}, claimant="c"), 12, writer="c").take(written(DELETE), 13)
    assert isinstance(history.row, Tombstone)
    assert history.row.until == 104, "until then a copy of the first may come"
    assert history.take(claimed(0, 104, {"n": 1}, claimant="a"), 103, writer="a").doc is None


def test_a_creation_without_a_claim_is_refused_by_a_collection_that_is_unique() -> None:
    """Unless it was written when the collection was not: by a lower version."""
    history = History(UNIQUE).take(written(CREATE, {"n": 1}))
    assert (history.doc, history.refused) == (None, ["created without a claim, in a collection that is unique"])
    newer = Collection("Doc", unique=True, version=2)
    history = History(newer).take(written(Write("create", 1), {"n": 1}))
    assert history.doc == {"n": 1}
    assert claim_of(history.row) == -1
    history.take(written(Write("update", 2), {"n": 2})).take(written(Write("create", 2), {"n": 3}))
    assert history.doc == {"n": 2}
    assert history.take(written(DELETE)).row is None


def test_a_claim_is_nothing_to_a_collection_that_is_not_unique() -> None:
    """It judges by order alone."""
    history = History(DOC).take(claimed(0, 5, {"n": 1}), 100)
    assert history.doc == {"n": 1}
    assert history.take(claimed(0, 500, {"n": 1}), 101).refused[-1] == Present.REASON
