"""A deployment's stages: a list in PipeCD, a map by id in the store. Pure.

PipeCD reads a deployment, changes one entry of the list and writes all of it back, in a transaction. Stages run in
parallel, so here each report is a patch of its own stage: none reads what another writes, none waits, none is lost.
What a list says and a map does not is the order: each stage keeps its ``place``. (PipeCD's ``index`` will not do: it
is the place in the configuration, and zero for stages that the planner adds.)
"""

from __future__ import annotations

from collections.abc import Iterable

from examples.pipecd.models import Deployment, Stage


def by_id(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Return a list of stages as it is stored.

    >>> by_id([{"id": "plan"}, {"id": "apply"}])["apply"]["place"]
    1
    """
    return {stage["id"]: Stage(**{**stage, "place": place}) for place, stage in enumerate(stages)}


def in_order(deployment: Deployment) -> list[Stage]:
    """Return the list that was planned, each stage as it is now.

    >>> [stage["id"] for stage in in_order({"stages": by_id([{"id": "plan"}, {"id": "apply"}])})]
    ['plan', 'apply']
    """
    return sorted(deployment.get("stages", {}).values(), key=lambda stage: stage["place"])
