"""The 23 queries that PipeCD's control plane makes, by number.

Each says what it asks, in which order; ``find`` asks it, ``explain`` says by which index. What is optional is left out
where it is None. Ids ascending break ties everywhere, and where no order is named rows come by id. Labels are no part
of a query in PipeCD, for want of an index for each: ``pages.py`` has its loop.

>>> unhandled_commands("p-1").where
[('piped_id', '==', 'p-1'), ('status', '==', 0)]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from examples.pipecd.models import CHAIN_NOT_COMPLETED, NOT_COMPLETED, CommandStatus
from projections import DocumentStore, Page, Plan

Clause = tuple[str, str, Any]
NEWEST_FIRST: Final = ["-updated_at"]


class Question(NamedTuple):
    """What is asked of one kind."""

    kind: str
    where: list[Clause] = []  # noqa: RUF012  # never changed
    order_by: list[str] = []  # noqa: RUF012  # never changed

    def find(self, db: DocumentStore, limit: int | None = None, cursor: str | None = None) -> Page:
        """Return the documents, or a page of them."""
        return db.collection(self.kind).find(self.where, self.order_by, limit, cursor)

    def explain(self, db: DocumentStore, limit: int | None = None) -> Plan:
        """Return how ``find`` goes about it."""
        return db.collection(self.kind).explain(self.where, self.order_by, limit)


def _if_given(**fields: Any) -> list[Clause]:
    return [(field, "==", value) for field, value in fields.items() if value is not None]


# Applications ----------------------------------------------------------------------------------


def applications_of_piped(project_id: str, piped_id: str) -> Question:
    """1. What an agent looks after; each asks once a minute."""
    return Question("Application", _if_given(project_id=project_id, piped_id=piped_id, disabled=False))


def applications_of_project(
    project_id: str,
    *,
    disabled: bool | None = None,
    kind: int | None = None,
    sync_status: int | None = None,
    name: str | None = None,
    piped_id: str | None = None,
) -> Question:
    """2. The list in the web; PipeCD has no limit there."""
    given = _if_given(project_id=project_id, disabled=disabled, kind=kind, name=name, piped_id=piped_id)
    return Question("Application", given + _if_given(**{"sync_state.status": sync_status}), NEWEST_FIRST)


def applications_for_pipectl(
    project_id: str,
    disabled: bool,
    *,
    name: str | None = None,
    kind: int | None = None,
    piped_id: str | None = None,
) -> Question:
    """3. By pages; labels by ``pages.fill``."""
    return applications_of_project(project_id, disabled=disabled, kind=kind, name=name, piped_id=piped_id)


def applications_to_chain(project_id: str, *, name: str | None = None, kind: int | None = None) -> Question:
    """4. Those that a chain's matcher means."""
    return Question("Application", _if_given(project_id=project_id, name=name, kind=kind))


def all_applications() -> Question:
    """5. For insights, by pages of a hundred to the end, every hour."""
    return Question("Application", [], ["created_at"])


# Deployments -----------------------------------------------------------------------------------


def not_completed_deployments(piped_id: str) -> Question:
    """6. What an agent has to do; each asks every ten seconds."""
    return Question("Deployment", [("piped_id", "==", piped_id), ("status", "in", NOT_COMPLETED)])


def deployments_of_project(
    project_id: str,
    *,
    updated_since: int | None = None,
    status: int | None = None,
    kind: int | None = None,
    application_id: str | None = None,
    application_name: str | None = None,
) -> Question:
    """7. The list in the web, by pages; labels by ``pages.fill``."""
    given = _if_given(
        project_id=project_id,
        status=status,
        kind=kind,
        application_id=application_id,
        application_name=application_name,
    )
    return Question("Deployment", given + _since("updated_at", updated_since), NEWEST_FIRST)


def deployments_for_pipectl(project_id: str, **optional: Any) -> Question:
    """8. The same without a time."""
    return deployments_of_project(project_id, **optional)


def deployments_of_trace(commit_hash: str) -> Question:
    """9. Those that a commit of the application's code led to; one question for each trace on a page."""
    return Question("Deployment", _if_given(deployment_trace_commit_hash=commit_hash))


def deployments_of_chain(chain_id: str) -> Question:
    """10. For each chain that runs, every fifteen seconds."""
    return Question("Deployment", _if_given(deployment_chain_id=chain_id))


def completed_deployments(since: int, until: int) -> Question:
    """11. For insights, by pages of fifty to the end, every hour."""
    within = [("completed_at", "<=", until), ("completed_at", ">=", since)]
    return Question("Deployment", within, ["completed_at"])


# Chains, traces, pipeds ------------------------------------------------------------------------


def chains_of_project(project_id: str, updated_after: int) -> Question:
    """12. The list in the web, by pages."""
    return Question(
        "DeploymentChain", [("project_id", "==", project_id), ("updated_at", ">", updated_after)], NEWEST_FIRST
    )


def chains_not_completed() -> Question:
    """13. What the chains' controller looks after; once a minute."""
    return Question("DeploymentChain", [("status", "in", CHAIN_NOT_COMPLETED)])


def traces_of_project(project_id: str, updated_since: int, *, commit_hash: str | None = None) -> Question:
    """14. The list in the web, by pages."""
    given = _if_given(project_id=project_id, commit_hash=commit_hash)
    return Question("DeploymentTrace", given + _since("updated_at", updated_since), NEWEST_FIRST)


def pipeds_of_project(project_id: str, *, disabled: bool | None = None) -> Question:
    """15. The list in the web, and pipectl's."""
    return Question("Piped", _if_given(project_id=project_id, disabled=disabled))


# Commands and events ---------------------------------------------------------------------------


def unhandled_commands(piped_id: str) -> Question:
    """16. What people want of an agent; each asks every five seconds."""
    return Question("Command", _if_given(piped_id=piped_id, status=int(CommandStatus.NOT_HANDLED_YET)))


def orphan_commands(created_until: int) -> Question:
    """17. Those that nobody handled for a day; every six hours."""
    unhandled = _if_given(status=int(CommandStatus.NOT_HANDLED_YET))
    return Question("Command", [*unhandled, ("created_at", "<=", created_until)])


def latest_event(project_id: str, name: str, event_key: str) -> Question:
    """18. With a limit of one."""
    return Question("Event", _if_given(project_id=project_id, name=name, event_key=event_key), ["-created_at"])


def events_of_project(
    project_id: str,
    *,
    created_since: int | None = None,
    created_before: int | None = None,
    status: int | None = None,
    order_by: str | None = "-created_at",
) -> Question:
    """19. What happened lately; each agent asks once a minute for what is not handled of the last day."""
    given = _if_given(project_id=project_id, status=status) + _since("created_at", created_since)
    before = [] if created_before is None else [("created_at", "<", created_before)]
    return Question("Event", given + before, [] if order_by is None else [order_by])


def events_for_the_web(
    project_id: str, updated_since: int, *, name: str | None = None, status: int | None = None
) -> Question:
    """20. The list in the web, by pages; labels by ``pages.fill``."""
    given = _if_given(project_id=project_id, name=name, status=status)
    return Question("Event", given + _since("updated_at", updated_since), NEWEST_FIRST)


# Keys and projects -----------------------------------------------------------------------------


def api_keys_of_project(project_id: str, *, disabled: bool | None = None) -> Question:
    """21. The list in the web."""
    return Question("APIKey", _if_given(project_id=project_id, disabled=disabled))


def api_keys_in_use() -> Question:
    """22. Of all projects; every ten minutes."""
    return Question("APIKey", _if_given(disabled=False))


def all_projects() -> Question:
    """23. All there are: the one question for which an index would be no use."""
    return Question("Project")


def _since(field: str, time: int | None) -> list[Clause]:
    return [] if time is None else [(field, ">=", time)]


QUERIES: Final[Mapping[int, Callable[..., Question]]] = {
    1: applications_of_piped,
    2: applications_of_project,
    3: applications_for_pipectl,
    4: applications_to_chain,
    5: all_applications,
    6: not_completed_deployments,
    7: deployments_of_project,
    8: deployments_for_pipectl,
    9: deployments_of_trace,
    10: deployments_of_chain,
    11: completed_deployments,
    12: chains_of_project,
    13: chains_not_completed,
    14: traces_of_project,
    15: pipeds_of_project,
    16: unhandled_commands,
    17: orphan_commands,
    18: latest_event,
    19: events_of_project,
    20: events_for_the_web,
    21: api_keys_of_project,
    22: api_keys_in_use,
    23: all_projects,
}
