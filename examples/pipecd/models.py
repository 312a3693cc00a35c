"""What PipeCD's control plane keeps: nine kinds of documents, as types of plain maps.

A document is a map, so a type here costs nothing when it runs. Fields that are absent read as null, in queries too.
Names are those of PipeCD's protos; each kind has the fields that its update functions and queries are about, and any
other may be added. Times are Unix seconds.

Where several writers change parts of one thing at a time, the parts are a map by id, where PipeCD has a list: patches
of different entries never undo each other. So it is with a deployment's stages (``stages.py`` gives the list back), a
piped's keys, a project's roles and groups. What one writer decides as a whole stays a list: a chain's blocks.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, TypedDict

# Statuses: stored as numbers, as in the protos; do not renumber --------------------------------


class DeploymentStatus(IntEnum):
    PENDING = 0
    PLANNED = 1
    RUNNING = 2
    ROLLING_BACK = 3
    SUCCESS = 4
    FAILURE = 5
    CANCELLED = 6


class StageStatus(IntEnum):
    NOT_STARTED_YET = 0
    RUNNING = 1
    SUCCESS = 2
    FAILURE = 3
    CANCELLED = 4
    SKIPPED = 5
    EXITED = 6


class ChainStatus(IntEnum):
    """Of a chain of deployments, and of each of its blocks."""

    PENDING = 0
    RUNNING = 1
    SUCCESS = 2
    FAILURE = 3
    CANCELLED = 4


class CommandStatus(IntEnum):
    NOT_HANDLED_YET = 0
    SUCCEEDED = 1
    FAILED = 2
    TIMEOUT = 3


class EventStatus(IntEnum):
    NOT_HANDLED = 0
    SUCCESS = 1
    FAILURE = 2
    OUTDATED = 3


NOT_COMPLETED: Final = [int(status) for status in DeploymentStatus if status < DeploymentStatus.SUCCESS]
CHAIN_NOT_COMPLETED: Final = [int(ChainStatus.PENDING), int(ChainStatus.RUNNING)]


# Documents -------------------------------------------------------------------------------------


class Entity(TypedDict, total=False):
    """What all nine have. The key of a document is its id."""

    id: str
    created_at: int
    updated_at: int


class GitPath(TypedDict, total=False):
    repo: dict[str, str]
    path: str
    config_filename: str
    url: str


class SyncState(TypedDict, total=False):
    status: int
    short_reason: str
    reason: str
    head_deployment_id: str
    timestamp: int


class Application(Entity, total=False):
    name: str
    project_id: str
    piped_id: str
    kind: int
    git_path: GitPath
    platform_provider: str
    deploy_targets_by_plugin: dict[str, list[str]]
    description: str
    labels: dict[str, str]
    most_recently_successful_deployment: dict[str, Any]
    most_recently_triggered_deployment: dict[str, Any]
    sync_state: SyncState
    deploying: bool
    deleted: bool
    deleted_at: int
    disabled: bool


class Stage(TypedDict, total=False):
    """``place``: where it stands in PipeCD's list, which the store keeps as a map."""

    id: str
    name: str
    desc: str
    index: int
    place: int
    requires: list[str]
    visible: bool
    rollback: bool
    status: int
    status_reason: str
    metadata: dict[str, str]
    retried_count: int
    completed_at: int
    created_at: int
    updated_at: int


class DeploymentMetadata(TypedDict, total=False):
    shared: dict[str, str]
    plugins: dict[str, dict[str, str]]


class Deployment(Entity, total=False):
    application_id: str
    application_name: str
    project_id: str
    piped_id: str
    kind: int
    git_path: GitPath
    labels: dict[str, str]
    trigger: dict[str, Any]
    summary: str
    versions: list[dict[str, Any]]
    running_commit_hash: str
    running_config_filename: str
    status: int
    status_reason: str
    stages: dict[str, Stage]
    metadata: dict[str, str]
    metadata_v2: DeploymentMetadata
    deployment_chain_id: str
    deployment_chain_block_index: int
    deployment_trace_commit_hash: str
    completed_at: int


class ChainNode(TypedDict, total=False):
    application_ref: dict[str, str]
    deployment_ref: dict[str, Any]


class ChainBlock(TypedDict, total=False):
    nodes: list[ChainNode]
    status: int
    started_at: int
    completed_at: int


class DeploymentChain(Entity, total=False):
    project_id: str
    status: int
    blocks: list[ChainBlock]
    completed_at: int


class DeploymentTrace(Entity, total=False):
    project_id: str
    title: str
    commit_hash: str
    commit_message: str
    commit_url: str
    commit_timestamp: int
    author: str


class PipedKey(TypedDict, total=False):
    creator: str
    created_at: int


class Piped(Entity, total=False):
    """``keys``: by hash."""

    name: str
    desc: str
    project_id: str
    version: str
    started_at: int
    config: str
    platform_providers: list[dict[str, Any]]
    plugins: list[dict[str, Any]]
    repositories: list[dict[str, Any]]
    secret_encryption: dict[str, str]
    keys: dict[str, PipedKey]
    desired_version: str
    disabled: bool


class Project(Entity, total=False):
    """``rbac_roles``: policies by the role's name. ``user_groups``: roles by the SSO group."""

    desc: str
    static_admin: dict[str, str]
    static_admin_disabled: bool
    sso: dict[str, Any]
    rbac: dict[str, str]
    rbac_roles: dict[str, list[dict[str, Any]]]
    user_groups: dict[str, str]


class Command(Entity, total=False):
    project_id: str
    piped_id: str
    application_id: str
    deployment_id: str
    stage_id: str
    commander: str
    type: int
    status: int
    metadata: dict[str, str]
    handled_at: int


class Event(Entity, total=False):
    """An event of PipeCD's, such as "a new image": a document here. Not to be confused with the log's events."""

    project_id: str
    name: str
    data: str
    labels: dict[str, str]
    event_key: str
    status: int
    status_description: str
    contexts: dict[str, str]
    trigger_commit_hash: str
    handled_at: int


class APIKey(Entity, total=False):
    project_id: str
    name: str
    key_hash: str
    role: int
    creator: str
    last_used_at: int
    disabled: bool
