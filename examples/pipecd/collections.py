"""The nine kinds as collections: by which indexes they are asked, what guards them, who alone writes which field.

Every process declares them alike. The comments say which of the queries (``queries.py``) an index is for: what is
compared with ``==`` or ``in`` comes first, what is ordered by or compared with ``<`` comes last. An index costs about
90 bytes and some microseconds per change for each document, whether it has the field or not.

*Owners* go by the name under which a process writes. The names begin as PipeCD's FileDB called its roles: ``client-``
serves the web and pipectl, ``agent-`` serves the pipeds, ``ops-`` does what is due now and then. An owned field is
left out when somebody else creates the document, and reads as null until its owner writes it. What comes from another
control plane is created whole, by ``import``, which owns nothing (``logstore import --as documents``).
"""

from __future__ import annotations

from typing import Final

from examples.pipecd import guards
from projections import Collection, Index

CLIENT: Final = "client-*"
AGENT: Final = "agent-*"
OPS: Final = "ops-*"
IMPORT: Final = "import"

APPLICATION: Final = Collection(
    "Application",
    indexes=[
        Index("project_id", "piped_id", "disabled"),  # 1, 4
        Index("project_id", "-updated_at"),  # 2, 3
        Index("project_id", "name"),  # 2, 3, 4 with a name
        Index("created_at"),  # 5
    ],
    guard=guards.application,
    owners={
        "sync_state": AGENT,
        "deploying": AGENT,
        "most_recently_successful_deployment": AGENT,
        "most_recently_triggered_deployment": AGENT,
        "disabled": CLIENT,
        "deleted": CLIENT,
        "deleted_at": CLIENT,
        "deploy_targets_by_plugin": CLIENT,
    },
    importers=IMPORT,
)

DEPLOYMENT: Final = Collection(
    "Deployment",
    indexes=[
        Index("piped_id", "status"),  # 6
        Index("project_id", "-updated_at"),  # 7, 8
        Index("project_id", "status", "-updated_at"),  # 7, 8 with a status
        Index("application_id", "-updated_at"),  # 7, 8 with an application
        Index("deployment_trace_commit_hash"),  # 9
        Index("deployment_chain_id"),  # 10
        Index("completed_at"),  # 11
        Index("project_id", "status", "completed_at"),  # insights.py
    ],
    guard=guards.deployment,
    owners=dict.fromkeys(("status", "status_reason", "stages", "metadata", "metadata_v2", "completed_at"), AGENT),
    importers=IMPORT,
)

DEPLOYMENT_CHAIN: Final = Collection(
    "DeploymentChain",
    indexes=[
        Index("project_id", "-updated_at"),  # 12
        Index("status"),  # 13
    ],
)

DEPLOYMENT_TRACE: Final = Collection(
    "DeploymentTrace",
    indexes=[
        Index("project_id", "-updated_at"),  # 14
        Index("project_id", "commit_hash", "-updated_at"),  # 14 with a commit
    ],
    guard=guards.trace,
)

PIPED: Final = Collection(
    "Piped",
    indexes=[Index("project_id", "disabled")],  # 15
    guard=guards.piped,
    owners={
        "config": AGENT,
        "version": AGENT,
        "started_at": AGENT,
        "repositories": AGENT,
        "plugins": AGENT,
        "platform_providers": AGENT,
        "secret_encryption": AGENT,
        "keys": CLIENT,
        "desired_version": CLIENT,
        "disabled": CLIENT,
    },
    importers=IMPORT,
)

# People choose a project's id, so two of them may choose the same: one learns at once that it was second. Elsewhere ids
# are UUIDs, and a claim for each would be a request for nothing.
PROJECT: Final = Collection("Project", unique=True)

# No guard: of an agent's report and a time-out, whichever comes last counts, as in PipeCD.
COMMAND: Final = Collection(
    "Command",
    indexes=[
        Index("piped_id", "status"),  # 16
        Index("status", "created_at"),  # 17
    ],
)

EVENT: Final = Collection(
    "Event",
    indexes=[
        Index("project_id", "name", "event_key", "-created_at"),  # 18
        Index("project_id", "status", "created_at"),  # 19
        Index("project_id", "created_at"),  # 19 whatever the status
        Index("project_id", "-updated_at"),  # 20
    ],
    owners={"handled_at": AGENT, "status_description": AGENT},
    importers=IMPORT,
)

API_KEY: Final = Collection(
    "APIKey",
    indexes=[
        Index("project_id", "disabled"),  # 21
        Index("disabled"),  # 22
    ],
    guard=guards.api_key,
    owners={"disabled": CLIENT, "last_used_at": OPS},
    importers=IMPORT,
)

COLLECTIONS: Final = (
    APPLICATION,
    DEPLOYMENT,
    DEPLOYMENT_CHAIN,
    DEPLOYMENT_TRACE,
    PIPED,
    PROJECT,
    COMMAND,
    EVENT,
    API_KEY,
)
