"""Deployment chains: blocks of deployments, one after the other; what a chain is said to be follows from all of them.

A status that depends on the whole document cannot be a patch: two reports at once, each counting without the other,
would leave a chain that runs for ever. So this is ``modify``: the function is called again whenever somebody else came
in between, and the write is settled when it returns. That takes seconds; the controller looks every fifteen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from examples.pipecd.models import (
    CHAIN_NOT_COMPLETED,
    ChainBlock,
    ChainNode,
    ChainStatus,
    Deployment,
    DeploymentChain,
    DeploymentStatus,
)
from examples.pipecd.store import Store
from logstore import InvalidArgument
from logstore.event import Data
from projections import WriteReceipt

_OF_DEPLOYMENT = {
    DeploymentStatus.SUCCESS: ChainStatus.SUCCESS,
    DeploymentStatus.FAILURE: ChainStatus.FAILURE,
    DeploymentStatus.CANCELLED: ChainStatus.CANCELLED,
    DeploymentStatus.RUNNING: ChainStatus.RUNNING,
}


class DeploymentChains(Store[DeploymentChain]):
    kind = "DeploymentChain"
    defaults: ClassVar[Data] = {"status": int(ChainStatus.PENDING)}

    async def add_node_deployment(self, id: str, deployment: Deployment) -> WriteReceipt:
        """Link a deployment to its application's node in the block that it names."""
        number, application_id = deployment.get("deployment_chain_block_index", 0), deployment["application_id"]

        def link(chain: DeploymentChain) -> None:
            for node in _block(chain, number)["nodes"]:
                if node["application_ref"]["application_id"] == application_id:
                    node["deployment_ref"] = {
                        "deployment_id": deployment["id"],
                        "status": deployment["status"],
                        "status_reason": deployment.get("status_reason", ""),
                    }
                    return
            raise InvalidArgument(f"no node for the application chain={id} application={application_id}")

        return await self.modify(id, "node_added", link)

    async def update_node_deployment_status(
        self, id: str, block_index: int, deployment_id: str, status: DeploymentStatus, status_reason: str
    ) -> WriteReceipt:
        """Note how a deployment fares, and what that makes of its block and of the chain."""

        def note(chain: DeploymentChain) -> None:
            block = _block(chain, block_index)
            _node(block, deployment_id)["deployment_ref"].update(status=int(status), status_reason=status_reason)
            if block.get("status", 0) not in CHAIN_NOT_COMPLETED:
                return  # what is over stays as it ended
            now = self.now()
            block["status"] = block_status(block)
            if block["status"] not in CHAIN_NOT_COMPLETED:
                block["completed_at"] = now
            chain["status"] = chain_status(chain)
            if chain["status"] not in CHAIN_NOT_COMPLETED:
                chain["completed_at"] = now

        return await self.modify(id, "node_status_changed", note)


def block_status(block: ChainBlock) -> int:
    """What a block is, after its nodes. One that is over stays as it ended."""
    nodes = [node["deployment_ref"]["status"] for node in block["nodes"] if "deployment_ref" in node]
    statuses = [_OF_DEPLOYMENT.get(DeploymentStatus(status), ChainStatus.PENDING) for status in nodes]
    return _status(block.get("status", 0), statuses, len(block["nodes"]))


def chain_status(chain: DeploymentChain) -> int:
    """What a chain is, after its blocks. One that is over stays as it ended."""
    return _status(chain["status"], [block.get("status", 0) for block in chain["blocks"]], len(chain["blocks"]))


def _status(current: int, parts: Sequence[int], parts_in_all: int) -> int:
    if current not in CHAIN_NOT_COMPLETED:
        return current
    if parts.count(ChainStatus.SUCCESS) == parts_in_all:
        return int(ChainStatus.SUCCESS)
    for status in (ChainStatus.FAILURE, ChainStatus.CANCELLED, ChainStatus.RUNNING):
        if status in parts:
            return int(status)
    return current


def _block(chain: DeploymentChain, number: int) -> ChainBlock:
    if not 0 <= number < len(chain["blocks"]):
        raise InvalidArgument(f"no such block chain={chain['id']} block={number}")
    return chain["blocks"][number]


def _node(block: ChainBlock, deployment_id: str) -> ChainNode:
    for node in block["nodes"]:
        if node.get("deployment_ref", {}).get("deployment_id") == deployment_id:
            return node
    raise InvalidArgument(f"no node has this deployment deployment={deployment_id}")
