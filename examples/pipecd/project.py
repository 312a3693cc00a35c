"""Projects: ids that people choose, and settings that people change after they have looked.

So creation is ``unique``, and what depends on what was seen carries the version that was seen (``if_version``): who
comes second gets Conflict, and looks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from examples.pipecd.models import Project
from examples.pipecd.store import Store
from logstore import InvalidArgument
from logstore.event import Data
from projections import WriteReceipt

BUILTIN_ROLES: Final = frozenset({"Admin", "Editor", "Viewer"})


class Projects(Store[Project]):
    kind = "Project"
    defaults: ClassVar[Data] = {"static_admin_disabled": False}

    async def update_static_admin(self, id: str, username: str = "", password_hash: str = "") -> WriteReceipt:
        """Change what is given; the password alone to reset it."""
        given = {"username": username, "password_hash": password_hash}
        return await self.patch(id, "admin_changed", static_admin={name: text for name, text in given.items() if text})

    async def enable_static_admin(self, id: str) -> WriteReceipt:
        return await self.patch(id, "admin_enabled", static_admin_disabled=False)

    async def disable_static_admin(self, id: str) -> WriteReceipt:
        return await self.patch(id, "admin_disabled", static_admin_disabled=True)

    async def update_sso_config(self, id: str, sso: Mapping[str, Any]) -> WriteReceipt:
        """Change what is given; secrets that are left out stay."""
        return await self.patch(id, "sso_changed", sso=sso)

    async def update_rbac_config(self, id: str, rbac: Mapping[str, str]) -> WriteReceipt:
        return await self.patch(id, "rbac_changed", rbac={"admin": "", "editor": "", "viewer": "", **rbac})

    # Roles, and who has them

    async def add_rbac_role(self, id: str, name: str, policies: Sequence[Mapping[str, Any]]) -> WriteReceipt:
        _require(name not in BUILTIN_ROLES, "the name of a built-in role", name)
        _require(name not in self._roles(id), "there is such a role", name)
        return await self._patch_as_seen(id, "role_added", rbac_roles={name: [dict(policy) for policy in policies]})

    async def update_rbac_role(self, id: str, name: str, policies: Sequence[Mapping[str, Any]]) -> WriteReceipt:
        _require(name not in BUILTIN_ROLES, "a built-in role", name)
        _require(name in self._roles(id), "no such role", name)
        return await self._patch_as_seen(id, "role_changed", rbac_roles={name: [dict(policy) for policy in policies]})

    async def delete_rbac_role(self, id: str, name: str) -> WriteReceipt:
        _require(name not in BUILTIN_ROLES, "a built-in role", name)
        _require(name in self._roles(id), "no such role", name)
        return await self._patch_as_seen(id, "role_deleted", rbac_roles={name: None})

    async def add_user_group(self, id: str, sso_group: str, role: str) -> WriteReceipt:
        project = self.get(id)
        taken = {*project.get("user_groups", {}), *project.get("rbac", {}).values()}
        _require(sso_group not in taken, "the group has a role", sso_group)
        _require(role in BUILTIN_ROLES or role in self._roles(id), "no such role", role)
        return await self._patch_as_seen(id, "group_added", user_groups={sso_group: role})

    async def delete_user_group(self, id: str, sso_group: str) -> WriteReceipt:
        _require(sso_group in self.get(id).get("user_groups", {}), "no such group", sso_group)
        return await self._patch_as_seen(id, "group_deleted", user_groups={sso_group: None})

    def _roles(self, id: str) -> Mapping[str, Any]:
        return self.get(id).get("rbac_roles", {})

    async def _patch_as_seen(self, id: str, type: str, **fields: Any) -> WriteReceipt:
        """Change the project if it is as it was when the caller looked: there is no step since then."""
        seen = self.documents.version(id)
        return await self.documents.update(id, {**fields, "updated_at": self.now()}, type=type, if_version=seen)


def _require(condition: bool, what: str, name: str) -> None:
    if not condition:
        raise InvalidArgument(f"{what} name={name}")
