"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import examples
import logstore
import projections

MODULES = sorted(
    module.name
    for package in (logstore, projections, examples)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["logstore", "projections", "scripts.audit", *MODULES])
def test_examples_in_docstrings_run(name: str) -> None:
    """Each module's docstrings hold only examples that are true."""
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
