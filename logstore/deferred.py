"""Public names of a package that are loaded when they are asked for (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["deferred"]


def deferred(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``, given the module within it that defines each name.

    No name may be that of a module: whoever imports the module sets its name in the package.
    """
    window = vars(sys.modules[package])

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = window[name] = getattr(import_module(f"{package}.{modules[name]}"), name)
        return found

    def names() -> list[str]:
        return sorted({*window, *modules})

    return load, names
