"""Each of the 23 queries returns what a list comprehension over all documents does, by an index."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import logstore
from examples.pipecd import COLLECTIONS, DeploymentStatus, insights, queries
from examples.pipecd.pages import everything, fill, has_labels
from examples.pipecd.queries import QUERIES, Question
from projections import Collection, DocumentStore
from tests.pipecd.planes import roles

SEED = 7
COUNT = 240  # of each kind
BEGAN = 1_700_000_000
PROJECTS = ["shop", "blog", "Ünïcode", ""]
PIPEDS = [f"piped-{number}" for number in range(5)]
NAMES = ["cart", "pay", "mail"]
HASHES = ["c0ffee", "beef", "f00d"]
LABELS = [{}, {"env": "prod"}, {"env": "dev"}, {"env": "prod", "example.com/team": "a"}]


def times(rng: random.Random) -> int:
    """Few enough that many are equal."""
    return BEGAN + rng.randrange(40)


def documents_of(kind: str, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Documents as the servers leave them: some fields are there, some are not."""
    for number in range(COUNT):
        document: dict[str, Any] = {
            "id": f"{kind}-{rng.getrandbits(32):08x}-{number}",
            "project_id": rng.choice(PROJECTS),
            "created_at": times(rng),
            "updated_at": times(rng),
            "piped_id": rng.choice(PIPEDS),
            "kind": rng.randrange(3),
            "name": rng.choice(NAMES),
            "labels": rng.choice(LABELS),
        }
        document |= PARTICULAR[kind](rng)
        yield document


def maybe(rng: random.Random, **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if rng.random() < 0.7}


PARTICULAR: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "Application": lambda rng: {
        "disabled": rng.random() < 0.3,
        "deleted": False,
        **maybe(rng, sync_state={"status": rng.randrange(4)}),
    },
    "Deployment": lambda rng: {
        "status": rng.randrange(7),
        "application_id": f"a-{rng.randrange(9)}",
        "application_name": rng.choice(NAMES),
        **maybe(
            rng,
            deployment_trace_commit_hash=rng.choice(HASHES),
            deployment_chain_id=f"c-{rng.randrange(9)}",
            completed_at=times(rng),
        ),
    },
    "DeploymentChain": lambda rng: {"status": rng.randrange(5), "blocks": []},
    "DeploymentTrace": lambda rng: {"commit_hash": rng.choice(HASHES), "title": "fix"},
    "Piped": lambda rng: {"disabled": rng.random() < 0.3},
    "Project": lambda _rng: {"static_admin_disabled": False},
    "Command": lambda rng: {"status": rng.randrange(4), "type": 0},
    "Event": lambda rng: {"status": rng.randrange(4), "event_key": rng.choice(HASHES)},
    "APIKey": lambda rng: {"disabled": rng.random() < 0.3},
}


class Stored(NamedTuple):
    """A closed store, which answers still, and the documents in it."""

    db: DocumentStore
    documents: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def stored() -> Stored:
    rng = random.Random(SEED)
    documents = {kind: list(documents_of(kind, rng)) for kind in PARTICULAR}
    del documents["Project"][10:]

    asked_alike = [Collection(each.kind, indexes=each.indexes) for each in COLLECTIONS]  # and written by anybody

    async def store() -> DocumentStore:
        async with (
            logstore.open("memory://pipecd-queries") as log,
            DocumentStore.open(log, writer="somebody", collections=asked_alike) as db,
        ):
            for kind, each in documents.items():
                create = db.collection(kind).create
                await asyncio.gather(*(create(document["id"], document) for document in each))
            return db

    return Stored(asyncio.run(store()), documents)


# What each is asked, and what it means -----------------------------------------------------------


class Asked(NamedTuple):
    """A query with its arguments, and the same said in Python."""

    question: Question
    matches: Callable[[dict[str, Any]], bool]
    order: Callable[[dict[str, Any]], Any] = lambda _document: 0


def newest(document: dict[str, Any]) -> int:
    return -int(document["updated_at"])


def is_among(rng: random.Random, **choices: Any) -> tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]:
    """Some optional arguments, and that a document's fields equal them."""
    chosen = {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.5}
    return chosen, lambda document: all(document.get(name) == value for name, value in chosen.items())


def ask(number: int, rng: random.Random) -> Asked:
    """The query of that number with arguments at random."""
    project, piped, time = rng.choice([*PROJECTS, "none"]), rng.choice(PIPEDS), times(rng)

    def ours(document: dict[str, Any]) -> bool:
        return bool(document["project_id"] == project)

    match number:
        case 1:
            return Asked(
                queries.applications_of_piped(project, piped),
                lambda d: ours(d) and d["piped_id"] == piped and not d["disabled"],
            )
        case 2:
            chosen, equal = is_among(rng, disabled=[True, False], kind=[0, 1], name=NAMES, piped_id=PIPEDS)
            status = rng.choice([None, 0, 1])
            return Asked(
                queries.applications_of_project(project, sync_status=status, **chosen),
                lambda d: (
                    ours(d)
                    and equal(d)
                    and (status is None or d.get("sync_state", {"status": None})["status"] == status)
                ),
                newest,
            )
        case 3:
            chosen, equal = is_among(rng, kind=[0, 1], name=NAMES, piped_id=PIPEDS)
            disabled = rng.random() < 0.5
            return Asked(
                queries.applications_for_pipectl(project, disabled, **chosen),
                lambda d: ours(d) and equal(d) and d["disabled"] is disabled,
                newest,
            )
        case 4:
            chosen, equal = is_among(rng, kind=[0, 1], name=NAMES)
            return Asked(queries.applications_to_chain(project, **chosen), lambda d: ours(d) and equal(d))
        case 5:
            return Asked(queries.all_applications(), lambda _d: True, lambda d: d["created_at"])
        case 6:
            return Asked(
                queries.not_completed_deployments(piped),
                lambda d: d["piped_id"] == piped and d["status"] in (0, 1, 2, 3),
            )
        case 7 | 8:
            chosen, equal = is_among(
                rng,
                status=range(7),
                kind=[0, 1],
                application_id=["a-1", "a-2", "a-99"],
                application_name=NAMES,
            )
            since = time if number == 7 else 0
            question = (
                queries.deployments_of_project(project, updated_since=time, **chosen)
                if number == 7
                else queries.deployments_for_pipectl(project, **chosen)
            )
            return Asked(question, lambda d: ours(d) and equal(d) and d["updated_at"] >= since, newest)
        case 9:
            commit = rng.choice(HASHES)
            return Asked(
                queries.deployments_of_trace(commit), lambda d: d.get("deployment_trace_commit_hash") == commit
            )
        case 10:
            chain = f"c-{rng.randrange(10)}"
            return Asked(queries.deployments_of_chain(chain), lambda d: d.get("deployment_chain_id") == chain)
        case 11:
            until = time + rng.randrange(9)
            return Asked(
                queries.completed_deployments(time, until),
                lambda d: time <= d.get("completed_at", 0) <= until,
                lambda d: d["completed_at"],
            )
        case 12:
            return Asked(queries.chains_of_project(project, time), lambda d: ours(d) and d["updated_at"] > time, newest)
        case 13:
            return Asked(queries.chains_not_completed(), lambda d: d["status"] in (0, 1))
        case 14:
            chosen, equal = is_among(rng, commit_hash=HASHES)
            return Asked(
                queries.traces_of_project(project, time, **chosen),
                lambda d: ours(d) and equal(d) and d["updated_at"] >= time,
                newest,
            )
        case 15:
            chosen, equal = is_among(rng, disabled=[True, False])
            return Asked(queries.pipeds_of_project(project, **chosen), lambda d: ours(d) and equal(d))
        case 16:
            return Asked(queries.unhandled_commands(piped), lambda d: d["piped_id"] == piped and d["status"] == 0)
        case 17:
            return Asked(queries.orphan_commands(time), lambda d: d["status"] == 0 and d["created_at"] <= time)
        case 18:
            name, key = rng.choice(NAMES), rng.choice(HASHES)
            return Asked(
                queries.latest_event(project, name, key),
                lambda d: ours(d) and d["name"] == name and d["event_key"] == key,
                lambda d: -d["created_at"],
            )
        case 19:
            chosen, equal = is_among(rng, status=range(4))
            after, before = rng.choice([None, time]), rng.choice([None, time + 9])
            order = rng.choice(["-created_at", "created_at", None])
            sign = {"-created_at": -1, "created_at": 1, None: 0}[order]
            return Asked(
                queries.events_of_project(
                    project, created_since=after, created_before=before, order_by=order, **chosen
                ),
                lambda d: (
                    ours(d)
                    and equal(d)
                    and (after is None or d["created_at"] >= after)
                    and (before is None or d["created_at"] < before)
                ),
                lambda d: sign * d["created_at"],
            )
        case 20:
            chosen, equal = is_among(rng, name=NAMES, status=range(4))
            return Asked(
                queries.events_for_the_web(project, time, **chosen),
                lambda d: ours(d) and equal(d) and d["updated_at"] >= time,
                newest,
            )
        case 21:
            chosen, equal = is_among(rng, disabled=[True, False])
            return Asked(queries.api_keys_of_project(project, **chosen), lambda d: ours(d) and equal(d))
        case 22:
            return Asked(queries.api_keys_in_use(), lambda d: d["disabled"] is False)
        case 23:
            return Asked(queries.all_projects(), lambda _d: True)
    raise AssertionError(number)


def naive(documents: list[dict[str, Any]], asked: Asked) -> list[str]:
    found = [document for document in documents if asked.matches(document)]
    return [document["id"] for document in sorted(found, key=lambda d: (asked.order(d), d["id"]))]


# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", QUERIES)
def test_a_query_finds_what_a_list_comprehension_finds(stored: Stored, number: int) -> None:
    """In the same order, whatever its optional arguments."""
    rng = random.Random(number)
    found_some = 0
    for _ in range(60):
        asked = ask(number, rng)
        page = asked.question.find(stored.db)
        assert page.keys == naive(stored.documents[asked.question.kind], asked), asked.question
        assert [row["id"] for row in page.rows] == page.keys
        found_some += bool(page.keys)
    assert found_some > 5


@pytest.mark.parametrize("number", QUERIES)
def test_pages_to_the_end_have_each_document_once(stored: Stored, number: int) -> None:
    """In order, whatever the size; and no page is empty but the only one."""
    rng = random.Random(number)
    for size in (1, 7, 100):
        asked = ask(number, rng)
        expected = naive(stored.documents[asked.question.kind], asked)
        assert [document["id"] for document in everything(asked.question, stored.db, size)] == expected
        keys: list[str] = []
        page = asked.question.find(stored.db, size)
        while page.cursor is not None:
            keys += page.keys
            page = asked.question.find(stored.db, size, page.cursor)
            assert page.keys
        assert keys + page.keys == expected


@pytest.mark.parametrize("number", [number for number in QUERIES if number != 23])
def test_a_query_goes_by_an_index(stored: Stored, number: int) -> None:
    """None looks at all documents of its kind, but the one that asks for all of them."""
    rng = random.Random(number)
    for _ in range(30):
        question = ask(number, rng).question
        for limit in (None, 20):
            plan = question.explain(stored.db, limit)
            assert plan.index is not None, plan
            assert question.find(stored.db, limit).examined < COUNT or number == 5


@pytest.mark.parametrize("number", [1, 6, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 21, 22])
def test_hot_queries_look_at_what_they_return(stored: Stored, number: int) -> None:
    """An index answers all that they ask, in their order: no document is looked at in vain."""
    rng = random.Random(number)
    for _ in range(30):
        question = ask(number, rng).question
        limit = 1 if number == 18 else None
        page, plan = question.find(stored.db, limit), question.explain(stored.db, limit)
        assert plan.filters == (), plan
        assert plan.ordered or not question.order_by, plan
        assert page.examined <= len(page.keys) + 1 + len(plan.stretches), plan


def test_the_index_of_each_query_is_the_one_that_was_meant(stored: Stored) -> None:
    """As the comments in collections.py say."""
    chosen = {number: repr(ask(number, random.Random(3)).question.explain(stored.db).index) for number in QUERIES}
    assert chosen[1] == "Index('doc.project_id', 'doc.piped_id', 'doc.disabled')"
    assert chosen[6] == "Index('doc.piped_id', 'doc.status')"
    assert chosen[9] == "Index('doc.deployment_trace_commit_hash')"
    assert chosen[10] == "Index('doc.deployment_chain_id')"
    assert chosen[11] == "Index('doc.completed_at')"
    assert chosen[16] == "Index('doc.piped_id', 'doc.status')"
    assert chosen[17] == "Index('doc.status', 'doc.created_at')"
    assert chosen[18] == "Index('doc.project_id', 'doc.name', 'doc.event_key', '-doc.created_at')"


@pytest.mark.parametrize("number", [3, 7, 8, 20])
@pytest.mark.parametrize("labels", LABELS, ids=str)
def test_a_page_is_filled_with_what_has_the_labels(stored: Stored, number: int, labels: dict[str, str]) -> None:
    """Never more than was asked for, each once, in order; label names may hold dots."""
    rng = random.Random(number)
    for limit in (1, 5, 1_000):
        asked = ask(number, rng)
        kept = has_labels(labels)
        expected = naive([d for d in stored.documents[asked.question.kind] if kept(d)], asked)
        ids: list[str] = []
        cursor = None
        while True:
            filled = fill(asked.question, stored.db, kept, limit, cursor)
            assert len(filled.documents) <= limit
            ids += [document["id"] for document in filled.documents]
            cursor = filled.cursor
            if cursor is None:
                break
            assert len(filled.documents) == limit
        assert ids == expected


def test_insights_count_without_looking(stored: Stored) -> None:
    """As many as a list comprehension, and the rate from them."""
    since, before = BEGAN + 5, BEGAN + 25

    def expected(status: int) -> int:
        return sum(
            document["project_id"] == "shop"
            and document["status"] == status
            and since <= document["completed_at"] < before
            for document in stored.documents["Deployment"]
            if "completed_at" in document
        )

    succeeded, failed = (
        insights.completed(stored.db, "shop", status, since, before)
        for status in (DeploymentStatus.SUCCESS, DeploymentStatus.FAILURE)
    )
    assert (succeeded, failed) == (expected(4), expected(5))
    assert insights.change_failure_rate(stored.db, "shop", since, before) == failed / (failed + succeeded)
    assert insights.change_failure_rate(stored.db, "shop", before, before) == 0


async def test_pages_go_on_while_documents_change() -> None:
    """Query 5 sees each application once, whatever is updated and created in between."""
    async with roles() as plane:
        ids = [f"a-{number:02}" for number in range(30)]
        for number, id in enumerate(ids):
            await plane.web.applications.add({"id": id, "project_id": "shop", "created_at": number // 3})
        seen = []
        for number, document in enumerate(everything(queries.all_applications(), plane.web.db, 4)):
            seen.append(document["id"])
            plane.clock.time += 1
            await plane.web.applications.disable(ids[(number * 7) % 30])
            if number < 5:
                await plane.web.applications.add({"id": f"new-{number}", "project_id": "shop"})
        assert seen == [*ids, *(f"new-{number}" for number in range(5))]
