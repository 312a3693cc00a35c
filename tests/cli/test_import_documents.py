"""``logstore import --as documents``, and back: each document as it was, or told; count and digest agree."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import logstore
from examples.pipecd import COLLECTIONS, queries
from examples.pipecd.stages import by_id
from logstore import AlreadyExists
from projections import Collection, Documents, DocumentStore, Rejected, cli
from projections.cli.documentimport import REFUSED_MAX, DocumentImport, Verification
from projections.cli.documentlines import document_digest, document_of_line, fields_of_document, shown_digest
from projections.cli.jsonlines import to_json
from projections.cli.marks import end_sessions
from tests.cli.conftest import Tool, lines
from tests.scene import Carry, Machine, Scene, directed, lose, quick, refuse, until


def never_negative(_before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
    if after is not None and after.get("n", 0) < 0:
        raise Rejected("n is negative")


DOCS = Collection("Doc", guard=never_negative)
SEATS = Collection("Seat", unique=True)
ANYTHING = Collection("Anything")
OWNED = Collection("Owned", owners={"sync": "agent-*", "disabled": "web-*"}, importers="import")
OWNED_SEATS = Collection("Owned seat", unique=True, owners=OWNED.owners, importers="import")
CLOSED = Collection("Closed", owners={"sync": "agent-*"})
LED = Collection("Led", exclusive=True)
BOTH = [DOCS, SEATS]


@dataclass
class Model:
    """What a control plane makes of a document."""

    id: str
    n: int
    labels: dict[str, str] = field(default_factory=dict)


def document(n: int, /, **more: Any) -> dict[str, Any]:
    return {"id": f"d-{n}", "n": n, **more}


def upcast_of_few(data: Mapping[str, Any], _: int) -> Mapping[str, Any]:
    if data["n"] == 1:
        raise ValueError("no such thing")
    return data


NEWER = Collection(DOCS.kind, version=2, upcast=upcast_of_few)
RFC = Path(__file__).parents[2] / "docs/rfcs/0007-export-and-import.md"


def digest_by_the_rfc(exported: str) -> str:
    """The digest of an export, by the lines of Python that RFC 0007 gives its readers."""
    [code] = re.findall(r"^    import hashlib.*?(?=^\S)", RFC.read_text(), re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, input=exported, capture_output=True, text=True, check=True).stdout.strip()


def bring(tool: Tool, place: object, text: str | bytes, collection: str = "DOCS", *arguments: str) -> Result:
    return tool(
        "import", str(place), "--as", "documents", f"--collection={__name__}:{collection}", *arguments, stdin=text
    )


def told(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def back(tool: Tool, place: object, collection: str = "DOCS", *arguments: str) -> Result:
    return tool("export", str(place), f"--collection={__name__}:{collection}", *arguments)


def as_json_lines(*documents: Mapping[str, Any]) -> str:
    return lines(*({"key": each["id"], "document": each} for each in documents))


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def there(tool: Tool, place: object, collection: str = "DOCS") -> dict[str, Any]:
    return {each["key"]: each["document"] for each in records(back(tool, place, collection).stdout)}


# There and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", ["DOCS", "SEATS", "OWNED", "OWNED_SEATS"])
def test_documents_come_and_go_as_they_are(tool: Tool, tmp_path: Path, collection: str) -> None:
    """As lines with their keys and without; count and digest are the same in the file, the collection, the export."""
    documents = [document(n, sync={"status": n}, disabled=False, nothing=None) for n in range(5)]
    imported = bring(tool, tmp_path, lines(*documents), collection, "--json")
    assert imported.exit_code == 0, imported.stderr
    values = told(imported)
    assert (values["created"], values["documents"], values["stored"], values["others"]) == (5, 5, 5, 0)
    exported = back(tool, tmp_path, collection)
    assert exported.stdout == as_json_lines(*documents).replace(": ", ":").replace(", ", ",")
    digest = digest_by_the_rfc(exported.stdout)
    assert values["digest"] == values["stored_digest"] == digest
    assert f"5 documents exported digest={digest}" in exported.stderr
    plain = back(tool, tmp_path, collection, "--key", "id")
    assert records(plain.stdout) == documents
    for text in (exported.stdout, plain.stdout):
        again = bring(tool, tmp_path / "other", text, collection)
        assert (again.exit_code, again.stdout.count(digest)) == (0, 2)
    assert there(tool, tmp_path / "other", collection) == {each["id"]: each for each in documents}


names = st.text(max_size=6) | st.sampled_from(["$bytes", "id", "key", "document", "é\u2028"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
documents_by_key = st.dictionaries(
    st.text(min_size=1, max_size=9), st.dictionaries(names, values, max_size=4), max_size=8
)


@given(documents_by_key)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_export_and_import_are_each_others_inverse(
    tmp_path_factory: pytest.TempPathFactory, documents: dict[str, dict[str, Any]]
) -> None:
    """Whatever documents there are: imported, exported and imported again they are the same, and so is the digest."""

    def tool(*arguments: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(cli.main, arguments, input=stdin)

    place = tmp_path_factory.mktemp("logs")
    text = lines(*(fields_of_document(key, each, None) for key, each in documents.items()))
    digest = shown_digest(sum(document_digest(key, each) for key, each in documents.items()))
    for name, line in (("a", text), ("b", "")):
        result = bring(tool, place / name, line or back(tool, place / "a", "ANYTHING").stdout_bytes, "ANYTHING")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.count(f"{len(documents)} documents digest={digest}") == 2
        assert there(tool, place / name, "ANYTHING") == {key: to_json(each) for key, each in documents.items()}


@given(st.text(min_size=1, max_size=9), st.dictionaries(names, values, max_size=4))
def test_a_line_says_one_document(key: str, found: dict[str, Any]) -> None:
    """Read again it is the same; the digest does not depend on the order of fields."""
    line = json.dumps(fields_of_document(key, found, None)).encode()
    assert document_of_line(line, None) == (key, found)
    turned = dict(reversed(found.items()))
    assert document_digest(key, turned) == document_digest(key, found)


def test_the_key_is_the_field_that_is_named(tool: Tool, tmp_path: Path) -> None:
    """Another one than id; then a document that consists of key and document is a document."""
    found = {"key": "d-1", "document": {"id": "other"}}
    assert bring(tool, tmp_path / "a", lines(found), "DOCS", "--key", "key").exit_code == 0
    assert there(tool, tmp_path / "a") == {"d-1": found}
    assert bring(tool, tmp_path / "b", lines(found)).exit_code == 0
    assert there(tool, tmp_path / "b") == {"d-1": {"id": "other"}}
    refused = back(tool, tmp_path / "b", "DOCS", "--key", "id")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "not in this field --key=id key='d-1' value='other'; leave --key out" in refused.stderr


def test_parquet_has_the_key_and_the_document_as_json(tool: Tool, tmp_path: Path) -> None:
    """Its digest is that of the lines."""
    parquet = pytest.importorskip("pyarrow.parquet")
    bring(tool, tmp_path / "log", lines(document(1)))
    file = tmp_path / "docs.parquet"
    result = back(tool, tmp_path / "log", "DOCS", "--format", "parquet", "--out", str(file), "--json")
    assert told(result)["digest"] == digest_by_the_rfc(as_json_lines(document(1)))
    assert parquet.read_table(file).to_pylist() == [{"key": "d-1", "document": '{"id":"d-1","n":1}'}]


# Once --------------------------------------------------------------------------------------------


def test_what_is_there_is_left_as_it_is(tool: Tool, tmp_path: Path) -> None:
    """The same is counted; what differs is told, by line and key, and not overwritten; what is new is created."""
    assert bring(tool, tmp_path, lines(document(1), document(2))).exit_code == 0
    again = bring(tool, tmp_path, lines(document(1), document(2)), "DOCS", "--json")
    assert (again.exit_code, told(again)["created"], told(again)["found"]) == (0, 0, 2)
    differing = bring(tool, tmp_path, lines(document(1), document(2, n=7), document(3)), "DOCS", "--json")
    assert differing.exit_code == 1
    assert "stdin: line 2 key='d-2': it is there already, and differs; it is left as it is\n" in differing.stderr
    values = told(differing)
    assert (values["created"], values["found"], values["differing"]) == (1, 2, ["d-2"])
    assert (values["documents"], values["stored"]) == (3, 3)
    assert values["digest"] != values["stored_digest"]
    assert there(tool, tmp_path) == {f"d-{n}": document(n) for n in (1, 2, 3)}


def test_others_in_the_collection_are_counted(tool: Tool, tmp_path: Path) -> None:
    """What the file does not have is not compared."""
    bring(tool, tmp_path, lines(document(1), document(2)))
    result = bring(tool, tmp_path, lines(document(3)))
    assert (result.exit_code, ", and 2 others" in result.stdout) == (0, True)


def test_a_key_stands_once_in_a_file(tool: Tool, tmp_path: Path) -> None:
    """Twice with one document it is counted; with another one it is told, with both lines, and the first is taken."""
    turned = {"n": 1, "id": "d-1"}
    same = bring(tool, tmp_path / "a", lines(document(1), turned), "DOCS", "--json")
    assert (same.exit_code, told(same)["created"], told(same)["repeated"]) == (0, 1, 1)
    other = bring(tool, tmp_path / "b", lines(document(1), document(2), document(1, n=7)), "DOCS", "--json")
    assert (other.exit_code, told(other)["created"], told(other)["refused"]) == (1, 2, 1)
    assert "stdin: line 3 key='d-1': line 1 has another document of this key\n" in other.stderr
    assert there(tool, tmp_path / "b")["d-1"] == document(1)


async def batches(text: str, count: int) -> AsyncIterator[list[bytes]]:
    found = text.encode().splitlines()
    for start in range(0, len(found), count):
        yield found[start : start + count]


async def carry_over(machine: Machine, text: str, collection: Collection = DOCS) -> Verification:
    """Import ``text`` as a process of its own, three documents at a time."""
    async with machine.open(quick(), create=True) as log:
        await end_sessions(log, "import")
        async with DocumentStore.open(log, writer="import", collections=[collection]) as db:
            importing = DocumentImport(db.collection(collection.kind), collection.kind, "input", batch_documents=3)
            async with aclosing(importing.run(batches(text, 2))) as running:
                async for _ in running:
                    pass
            return await importing.verify()


async def crash(machine: Machine, carry: Carry, *, before: bool) -> None:
    """The process dies at a creation: before it was sent, or after it has landed."""
    if not before:
        with suppress(AlreadyExists):
            await carry()
    machine.process.crash()
    await asyncio.sleep(0.001)


DOCUMENTS = [document(n, stages={"plan": {"status": n}}) for n in range(8)]
TEXT = lines(*DOCUMENTS)
DIGEST = shown_digest(sum(document_digest(each["id"], each) for each in DOCUMENTS))


async def holds(machine: Machine, collection: Collection = DOCS) -> dict[str, Any]:
    """What another process sees, settled."""
    async with machine.open(quick()) as log, DocumentStore.open(log, collections=[collection]) as db:
        documents = db.collection(collection.kind)
        await documents.view.settle()
        page = documents.find(settled=True)
        return dict(zip(page.keys, map(dict, page.rows), strict=True))


def import_killed(scene: Scene, steps: Sequence[int], collection: Collection, *, before: bool) -> int:
    """Import again and again, killed at these creations, then to the end; how often it was killed."""

    def is_over(machine: Machine, task: asyncio.Task[Any]) -> bool:
        return task.done() or machine.process.state.value == "crashed"

    async def play() -> int:
        killed = 0
        for attempt, step in enumerate([*steps, None]):
            machine = scene.machine(f"mover-{attempt}")
            if step is not None:
                machine.script.on("create", "/", partial(crash, machine, before=before), skip=step)
            task = machine.start(carry_over(machine, TEXT, collection))
            await until(partial(is_over, machine, task))
            if task.done():
                found = task.result()
                assert (found.stored_digest, found.differing) == (DIGEST, []), steps
            else:
                killed += 1
        assert await holds(scene.machine("reader"), collection) == {each["id"]: each for each in DOCUMENTS}, steps
        return killed

    try:
        return scene.loop.run_until_complete(play())
    finally:
        scene.loop.close()


@pytest.mark.parametrize("collection", BOTH, ids=lambda each: each.kind)
@pytest.mark.parametrize("before", [False, True])
def test_killed_at_any_creation_it_goes_on(before: bool, collection: Collection) -> None:
    """Before or after each object that an import creates, twice in a row: each document is there once, and settled."""
    for step in range(200):
        if import_killed(Scene(step), [step, step // 2], collection, before=before) < 2:
            break
    else:
        pytest.fail("it never came to its end")
    assert step > 3


@given(st.lists(st.integers(0, 20), max_size=4), st.booleans(), st.sampled_from(BOTH))
@settings(max_examples=20, deadline=None)
def test_killed_again_and_again_it_goes_on(steps: list[int], before: bool, collection: Collection) -> None:
    """Wherever, and however often."""
    import_killed(Scene(1), steps, collection, before=before)


@directed
async def test_lost_answers_are_overcome(scene: Scene) -> None:
    """A creation whose answer is lost is not done twice."""
    machine = scene.machine("mover")
    machine.script.on("create", "log/", lose, times=2)
    assert (await carry_over(machine, TEXT)).differing == []


@directed
async def test_no_answer_stops_it(scene: Scene) -> None:
    """And says what to do: run again it finds what is there."""
    machine = scene.machine("mover")
    machine.script.on("create", "log/", lose, times=10_000, skip=1)
    machine.script.on("get", "log/", refuse, times=10_000)
    with pytest.raises(click.ClickException, match=r"input: (Unknown|Unavailable): .*\n.*run it again: it finds"):
        await carry_over(machine, TEXT)
    found = await carry_over(scene.machine("second"), TEXT)
    assert (found.stored_digest, found.differing) == (DIGEST, [])


@directed
async def test_writers_beside_it_are_not_overwritten(scene: Scene) -> None:
    """What others created, changed or deleted before all is settled is theirs, and is told."""
    async with (
        scene.machine("web").open(quick(), create=True) as log,
        DocumentStore.open(log, writer="web", collections=[DOCS]) as db,
    ):
        documents = db.collection("Doc")
        await documents.create("d-5", {"mine": True})

        async def meddle() -> None:
            await until(lambda: "d-2" in documents)
            await documents.update("d-1", {"n": 100})
            await documents.delete("d-2")

        meddling = asyncio.create_task(meddle())
        async with (
            scene.machine("mover").open(quick()) as other,
            DocumentStore.open(other, writer="import", collections=[DOCS]) as target,
        ):
            importing = DocumentImport(target.collection("Doc"), "Doc", "input", batch_documents=3)
            async with aclosing(importing.run(batches(TEXT, 2))) as running:
                async for _ in running:
                    pass
            await meddling
            found = await importing.verify()
        assert found.differing == ["d-1", "d-2", "d-5"]
        assert (found.documents, found.stored) == (8, 7)
        assert dict(documents.get("d-5")) == {"mine": True}
        assert documents.get("d-1")["n"] == 100


@directed
async def test_of_two_imports_at_once_each_document_is_there_once(scene: Scene) -> None:
    """Both end well; the second creation of a document is none."""
    for collection in BOTH:
        both = [carry_over(scene.machine(f"{collection.kind}-{n}"), TEXT, collection) for n in range(2)]
        for found in await asyncio.gather(*both):
            assert (found.stored_digest, found.differing) == (DIGEST, [])


def test_killed_for_real_it_goes_on(tool: Tool, tmp_path: Path) -> None:
    """SIGKILL when part of the input has gone into the pipe, twice; then each document is there once."""
    place, rng = str(tmp_path / "log"), random.Random(8)
    text = lines(*(document(n, fill="x" * 100) for n in range(10_000))).encode()
    command = [sys.executable, "-m", "projections.cli", "import", place, "--as=documents"]
    for _ in range(2):
        with subprocess.Popen(
            [*command, f"--collection={__name__}:DOCS"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as importing:
            assert importing.stdin is not None
            importing.stdin.write(text[: rng.randrange(len(text) // 3, len(text))])
            importing.kill()
    last = bring(tool, place, text, "DOCS", "--json")
    assert last.exit_code == 0, last.stderr
    assert told(last)["created"] + told(last)["found"] == told(last)["stored"] == 10_000


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2: InvalidArgument: not a line of JSON"),
        ("[1]", "line 2: InvalidArgument: not an object type=list; a line is an object with a document, or key and"),
        ('{"n": 1}', "line 2: InvalidArgument: a document's key is text field=id value=None; say with --key"),
        ('{"id": 7}', "line 2: InvalidArgument: a document's key is text field=id value=7"),
        ('{"key": 7, "document": {}}', "a document's key is text field=key value=7"),
        ('{"key": "d", "document": 7}', "line 2: InvalidArgument: a document is an object type=int key='d'"),
        ('{"key": "d", "document": {"$bytes": "AP8="}}', "a document is an object type=bytes key='d'"),
        ('{"id": "", "n": 1}', "needs 1 to 1024 bytes"),
        ('{"id": "d", "n": NaN}', "NaN is no JSON"),
        ('{"id": "d", "n": 1e999}', 'a number is too large for 64 bits field=document; write {"$float": "Infinity"}'),
        (
            '{"id": "d", "n": 18446744073709551616}',
            "cannot be stored key=d in=data cause=an integer needs more than 64",
        ),
        ('{"id": "d", "n": 1, "n": 2}', "a name stands twice in one object name='n'"),
        ('{"id": "d", "n": "\\ud800"}', "cannot be stored key=d in=data"),
        ('{"id": "d", "at": {"$date": "2026-01-01"}}', "a field name that begins with $ stands for what JSON cannot"),
        ('{"id": "d", "n": -1}', "line 2 key='d': Conflict: create refused: n is negative"),
        ('{"id": "d", "n": "text"}', "line 2 key='d': TypeError: "),
        ('{"id": "d", "a": ' + "[" * 200 + "]" * 200 + "}", "nested too deep"),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_imported(tool: Tool, tmp_path: Path, line: str, message: str) -> None:
    """Its number and mistake, and its key if it has one; the exit status says that not all is there."""
    result = bring(tool, tmp_path, lines(document(1)) + line + "\n" + lines(document(3)), "DOCS", "--json")
    assert (result.exit_code, told(result)["created"], told(result)["refused"]) == (1, 2, 1), result.stderr
    complaint, summary = result.stderr.splitlines()
    assert complaint.startswith("stdin: line 2")
    assert message in complaint
    assert summary.startswith("read lines 1 to 3 of stdin: 2 documents created, 0 that were there")
    assert sorted(there(tool, tmp_path)) == ["d-1", "d-3"]


def test_one_that_is_too_large_is_told(tool: Tool, tmp_path: Path) -> None:
    """By line and key; the others are there, also where one alone fills a segment. A line without end stops it."""
    large = [document(n, x="y" * (3 << 20)) for n in range(3)]
    huge = document(9, x=[1.5] * 1_500_000)  # eight MB as JSON, and twice that as stored
    result = bring(tool, tmp_path, lines(*large, huge, document(8)), "DOCS", "--json")
    assert (result.exit_code, told(result)["created"], told(result)["differing"]) == (1, 4, ["d-9"])
    assert "stdin: line 4 key='d-9': LimitExceeded: too much at once" in result.stderr
    endless = bring(tool, tmp_path, lines(document(7), document(6, x="y" * (9 << 20))))
    assert (endless.exit_code, "a line is too long input=stdin line=2 limit=" in endless.stderr) == (2, True)


def test_documents_fit_a_model(tool: Tool, tmp_path: Path) -> None:
    """Of which no object can be made is told; the others are stored as they are, with what the model does not know."""
    fits, misses, more = {"id": "d-1", "n": 1}, {"id": "d-2"}, {"id": "d-3", "n": 1, "more": 2}
    result = bring(tool, tmp_path, lines(fits, misses, more), "DOCS", f"--model={__name__}:Model", "--json")
    assert (result.exit_code, told(result)["created"], told(result)["refused"]) == (1, 2, 1)
    refused, _ = result.stderr.splitlines()
    assert refused.startswith("stdin: line 2 key='d-2': InvalidArgument: a document is not as its model says")
    assert there(tool, tmp_path) == {"d-1": fits, "d-3": more}


def test_an_export_tells_what_its_fold_failed_on(tool: Tool, tmp_path: Path) -> None:
    """An upcast that fails leaves documents out: status 1, and a line that says how many, for an export is a move."""
    bring(tool, tmp_path, lines(document(0), document(1), document(2)))
    result = back(tool, tmp_path, "NEWER")
    assert (result.exit_code, [each["key"] for each in records(result.stdout)]) == (1, ["d-0", "d-2"])
    assert "left out: what 1 events did, for the fold failed on them projection=" in result.stderr


def test_a_hundred_refusals_have_one_cause(tool: Tool, tmp_path: Path) -> None:
    """It stops there, with status 2, and says how far it is; mended, it goes on."""
    result = bring(tool, tmp_path, lines(document(1)) + "key;value\n" * 1_000)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == REFUSED_MAX + 2
    assert "too many lines are refused limit=100; mend them" in result.stderr
    assert bring(tool, tmp_path, lines(document(1), document(2))).exit_code == 0


def test_owned_fields_need_an_importer(tool: Tool, tmp_path: Path) -> None:
    """Who is none is told so first; then each document is told whose fields it has, and the others are there."""
    text = lines(document(1, sync=1), document(2))
    for collection, arguments in (("CLOSED", ()), ("OWNED", ("--writer", "mover"))):
        place = tmp_path / collection
        result = bring(tool, place, text, collection, *arguments)
        assert result.exit_code == 1
        first, refused, _ = result.stderr.splitlines()
        assert "is no importer of" in first
        assert "line 1 key='d-1': Conflict: create refused: sync is written by agent-*, not by" in refused
        assert sorted(there(tool, place, collection)) == ["d-2"]
    owner = bring(tool, tmp_path / "owner", text, "CLOSED", "--writer", "agent-7")
    assert owner.exit_code == 0


def test_exclusive_collections_are_refused(tool: Tool, tmp_path: Path) -> None:
    """Their leader's scope is all its kinds, and taken for ever: nothing is made."""
    result = bring(tool, tmp_path / "log", lines(document(1)), "LED")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "an exclusive collection is written by the leader of all its kinds collection=Led" in result.stderr
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--as", "documents"), "documents need their collection; name it by --collection"),
        (("--collection", "a:B"), "add --as documents"),
        (("--key", "id"), "add --as documents"),
        (("--as", "documents", f"--collection={__name__}:DOCS", "--source", "x"), "leave out --source"),
        (("--as", "documents", "--collection", "nonsense"), "needs package.module:NAME --collection=nonsense"),
        (("--as", "documents", f"--collection={__name__}:BOTH"), "names several collections"),
        (("--as", "documents", f"--collection={__name__}:TEXT"), "no Collection --collection="),
        (("--as", "documents", f"--collection={__name__}:DOCS", f"--model={__name__}:TEXT"), "no class --model="),
        (("--as", "documents", f"--collection={__name__}:DOCS", "--model=builtins:int"), "a model is a dataclass"),
    ],
)
def test_arguments_that_do_not_go_together(tool: Tool, tmp_path: Path, arguments: Sequence[str], message: str) -> None:
    """One line, and nothing is made."""
    result = tool("import", str(tmp_path / "log"), *arguments, stdin=lines(document(1)))
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert message in result.stderr
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--collection=a:B", "--projection=a:B"), "--projection and --collection at once"),
        (("--key", "id"), "--key is for lines of documents"),
        ((f"--collection={__name__}:DOCS", "--kind", "Doc"), "leave out --kind, --after"),
    ],
)
def test_an_export_s_arguments_that_do_not(tool: Tool, place: str, arguments: Sequence[str], message: str) -> None:
    """One line."""
    result = tool("export", place, *arguments)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert message in result.stderr


def test_nothing_is_imported_of_nothing(tool: Tool, tmp_path: Path) -> None:
    """Blank lines are no documents; that there is none is told, for a dump that failed is empty."""
    result = bring(tool, tmp_path, "\n \n")
    assert "stdin: there is no document in it" in result.stderr
    assert (result.exit_code, result.stdout.count(f"0 documents digest={'0' * 64}")) == (0, 2)


# What it leaves ----------------------------------------------------------------------------------


async def test_imported_documents_are_like_created_ones(tool: Tool, tmp_path: Path) -> None:
    """In a unique collection who creates one again is second, and after a deletion first; patches and owners hold."""
    await asyncio.to_thread(bring, tool, tmp_path, lines(document(1)), "SEATS")
    await asyncio.to_thread(bring, tool, tmp_path, lines(document(1, sync=1)), "OWNED")
    async with (
        logstore.open(tmp_path.as_uri()) as log,
        DocumentStore.open(log, writer="web-1", collections=[SEATS, OWNED]) as db,
    ):
        seats: Documents[Any] = db.collection("Seat")
        with pytest.raises(AlreadyExists):
            await seats.create("d-1", {})
        await seats.delete("d-1")
        await (await seats.create("d-1", {"new": True})).settled()
        assert dict(seats.get("d-1", settled=True)) == {"new": True}
        with pytest.raises(logstore.Conflict, match="sync is written by agent"):
            await db.collection("Owned").update("d-1", {"sync": 2})
        await (await db.collection("Owned").update("d-1", {"disabled": True})).settled()


# PipeCD's control plane --------------------------------------------------------------------------

APPLICATIONS = [
    {
        "id": f"a-{n}",
        "name": f"app-{n}",
        "piped_id": "p-1",
        "project_id": "shop",
        "kind": 1,
        "disabled": n == 2,
        "deleted": False,
        "sync_state": {"status": 2, "short_reason": "näh", "timestamp": 1_700_000_000 + n},
        "most_recently_successful_deployment": {"deployment_id": f"d-{n}", "version": "v1", "started_at": 1},
        "labels": {"env": "prod"},
        "created_at": 1_600_000_000,
        "updated_at": 1_700_000_000 + n,
    }
    for n in range(3)
]
DEPLOYMENTS = [
    {
        "id": f"d-{n}",
        "application_id": f"a-{n}",
        "piped_id": "p-1",
        "project_id": "shop",
        "status": (2, 4, 5)[n],
        "status_reason": "",
        "stages": [{"id": "plan", "name": "PLAN", "status": 2}, {"id": "apply", "name": "APPLY", "status": 1}],
        "metadata": {"DeploymentNotification": "{}"},
        "completed_at": (0, 1_700_000_100, 1_700_000_200)[n],
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_000 + n,
    }
    for n in range(3)
]
COMMANDS = [
    {"id": f"c-{n}", "piped_id": "p-1", "type": 0, "status": n % 2, "created_at": 5, "sync_application": {"x": None}}
    for n in range(4)
]


def pipecd(kind: str) -> str:
    """How a collection of the example is named."""
    names = {"Application": "APPLICATION", "Deployment": "DEPLOYMENT", "Command": "COMMAND"}
    return f"--collection=examples.pipecd.collections:{names[kind]}"


async def test_pipecd_moves_in_and_out(tool: Tool, tmp_path: Path) -> None:
    """Rows of MySQL's Data columns, stages made a map, owned fields too: they are asked, and exported as they came."""
    place = tmp_path / "cp"
    deployments = [{**each, "stages": by_id(each["stages"])} for each in DEPLOYMENTS]  # type: ignore[arg-type]
    rows: dict[str, list[Any]] = {"Application": APPLICATIONS, "Deployment": deployments, "Command": COMMANDS}
    raw = await asyncio.to_thread(
        tool, "import", str(place), "--as=documents", pipecd("Deployment"), stdin=lines(*DEPLOYMENTS)
    )
    assert (raw.exit_code, raw.stderr.count("key='d-")) == (1, 3)  # a list of stages: the guard does not expect one
    for kind, found in rows.items():
        result = await asyncio.to_thread(
            tool, "import", str(place), "--as=documents", pipecd(kind), stdin=lines(*found)
        )
        assert result.exit_code == 0, result.stderr
    async with logstore.open(place.as_uri()) as log, DocumentStore.open(log, collections=COLLECTIONS) as db:
        for question, keys in (
            (queries.applications_of_piped("shop", "p-1"), ["a-0", "a-1"]),
            (queries.not_completed_deployments("p-1"), ["d-0"]),
            (queries.unhandled_commands("p-1"), ["c-0", "c-2"]),
        ):
            assert sorted(db.collection(question.kind).find(question.where, question.order_by).keys) == keys
    for kind, found in rows.items():
        exported = await asyncio.to_thread(tool, "export", str(place), pipecd(kind), "--key", "id")
        assert records(exported.stdout) == found
        total = sum(document_digest(each["id"], each) for each in found)
        assert f"digest={shown_digest(total)}" in exported.stderr
