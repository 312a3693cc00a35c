"""Patches: how one document becomes another. JSON Merge Patch, RFC 7396. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgpack

_MAPS: Final = frozenset({dict, MappingProxyType})
_NO_MAPS: Final = frozenset({str, int, bool, float, bytes, tuple, list, type(None)})

__all__ = ["is_same", "merge_patch", "patch_between", "thawed", "touches"]


def merge_patch(state: Any, patch: Any) -> Any:
    """Return ``state`` with ``patch`` merged in: maps field by field at every depth; None removes, all else replaces.

    >>> merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": None, "e": 4}})
    {'a': 1, 'b': {'d': 3, 'e': 4}}
    """
    if not _is_map(patch):
        return patch
    merged = dict(state) if _is_map(state) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif _is_map(value):
            merged[name] = merge_patch(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def _is_map(value: Any) -> bool:
    """Whether it is a mapping. What is seen most is told by its type: to ask ``Mapping`` takes ten times as long."""
    exactly = type(value)
    return exactly not in _NO_MAPS and (exactly in _MAPS or isinstance(value, Mapping))


def patch_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that makes ``after`` of ``before``; a field that became None is removed by it.

    >>> patch_between({"a": 1, "b": {"c": 2, "d": 3}}, {"a": True, "b": {"d": 3, "e": 4}})
    {'a': True, 'b': {'c': None, 'e': 4}}
    """
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if nested := patch_between(old, value):
                patch[name] = nested
        elif name not in before or not is_same(old, value):
            patch[name] = value
    return patch


def touches(patch: Any, path: tuple[str, ...]) -> bool:
    """Whether a patch writes the field at ``path``, a part of it, or what holds it.

    >>> touches({"sync": {"status": 1}}, ("sync",)), touches({"sync": None}, ("sync", "status"))
    (True, True)
    """
    for name in path:
        if not isinstance(patch, Mapping):
            return True
        if name not in patch:
            return False
        patch = patch[name]
    return True


def thawed(value: Any) -> Any:
    """Return a copy to be changed: dicts and lists all through."""
    if isinstance(value, Mapping):
        return {name: thawed(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thawed(item) for item in value]
    return value


def is_same(value: Any, other: Any) -> bool:
    """Whether two values are stored alike: 1 is neither True nor 1.0. What cannot be stored is like nothing."""
    try:
        return bool(msgpack.packb(value, default=dict) == msgpack.packb(other, default=dict))
    except (TypeError, ValueError, OverflowError):
        return False
