"""Imports point one way. This reads every source file and holds it against the table of layers."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import logstore
import projections

ROOT = Path(__file__).parent.parent

# A module imports from its own line and from those above it. A package (filestore, testing, cli) is one unit.
LAYERS = {
    "logstore": (
        "errors deferred",
        "aside event clock keys digest finding frame indices token receipt histogram notices spans",
        (
            "segment entry identity retired session frontier chunk manifest registration pin claim archive stagepage "
            "gone named filestore encryption"
        ),
        "signature encrypted",
        "signed",
        "protection",
        "looks buffer trail shelf appended",
        "objects",
        "witness",
        "roster seal unsettled catchup chapter pins claims",
        "writer follower stagechain",
        "lead",
        "stagewriter stagelisting",
        "reader snapshots stagelogs walk transfer",
        "survey snapshotcheck archivecheck stagecheck retention",
        "check needs",
        "collector stageretention",
        "keeper",
        "remains stagerescue",
        "rescue",
        "backup",
        "log",
        "testing background otel",
        "sync",
    ),
    "projections": (
        "values spans words patch decoded heap cachefile tombstone locks listening",
        "index query bounded health",
        "projection state layout",
        "table snapshots document model",
        "past subscription",
        "view testing",
        "claims watch rounds transactions",
        "documents metrics",
        "document_store demo",
        "console exposition",
        "sync",
        "cli",
    ),
}
# What turns events into bytes and rows: imports nothing but its like, and never awaits.
PURE = {
    "logstore": "errors event clock keys digest finding frame indices token receipt frontier segment entry identity "
    "retired session chunk manifest registration pin claim archive stagepage gone named encryption signature histogram "
    "appended",
    "projections": "values spans words health patch decoded tombstone projection index query layout document model",
}
FILESTORE_KNOWS = {"errors", "clock", "keys", "spans"}  # objects are bytes to it: no segment, no event
RANK = {
    (package, unit): rank
    for package, lines in LAYERS.items()
    for rank, line in enumerate(lines)
    for unit in line.split()
}

SOURCES = [
    pytest.param(package, path, id=str(path.relative_to(ROOT)))
    for package in LAYERS
    for path in sorted((ROOT / package).rglob("*.py"))
]


def unit_of(package: str, path: Path) -> str:
    """Return which unit of its package a file belongs to; "" for the shop window."""
    first = path.relative_to(ROOT / package).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """Every node under ``if TYPE_CHECKING:``. Those imports never run, so they have no direction."""
    return {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }


def imported(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield every import, wherever it stands, as a dotted name; for ``from m import n`` both m.n and m count as m.n."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import, line {node.lineno}"
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def imported_units(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (package, unit) of every import of ours that runs; unit "" is the shop window itself."""
    skipped = type_checking_only(tree)
    for node, name in imported(tree):
        package, _, rest = name.partition(".")
        if package in LAYERS and node not in skipped:
            unit = rest.split(".")[0]
            is_module = (ROOT / package / f"{unit}.py").exists() or (ROOT / package / unit).is_dir()
            yield package, unit if is_module else ""


@pytest.mark.parametrize(("package", "path"), SOURCES)
def test_logstore_never_imports_projections(package: str, path: Path) -> None:
    """The log is ignorant of the read side, for type checkers too."""
    if package == "logstore":
        names = [name for _, name in imported(ast.parse(path.read_text()))]
        assert not [name for name in names if name.split(".")[0] == "projections"]


@pytest.mark.parametrize(("package", "path"), SOURCES)
def test_imports_point_one_way(package: str, path: Path) -> None:
    """A module imports only from its own layer and those below; nobody inside imports the shop window."""
    unit = unit_of(package, path)
    if not unit:
        return  # the window shows everything
    assert (package, unit) in RANK, f"give {package}/{unit} a place in LAYERS"
    for other_package, other in imported_units(ast.parse(path.read_text())):
        if other_package != package or other == unit:
            continue  # projections on logstore is fine; the reverse is the test above
        assert other or unit in {"testing", "cli"}, f"{package}/{unit} imports the shop window"
        assert not other or RANK[package, other] <= RANK[package, unit], f"{package}/{unit} imports {other} above it"
        pure = PURE[package].split()
        assert unit not in pure or other in pure, f"{package}/{unit} is pure, {other} is not"
        assert unit != "filestore" or other in FILESTORE_KNOWS, f"the filestore must not know {other}"


@pytest.mark.parametrize(("package", "path"), SOURCES)
def test_pure_modules_never_await(package: str, path: Path) -> None:
    """What turns events into bytes and rows does no I/O, so it has nothing to wait for."""
    if unit_of(package, path) in PURE[package].split():
        waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waits)]


@pytest.mark.parametrize("module", ["logstore", "logstore.testing", "projections", "projections.cli"])
def test_importing_loads_no_s3_client(module: str) -> None:
    """A user of a local directory does not pay for botocore."""
    script = f"import sys, {module}; print({{'aioboto3', 'aiobotocore', 'boto3', 'botocore'}} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output == "set()\n"


def test_importing_loads_nothing_that_looks_after_a_log() -> None:
    """It comes when it is asked for; what is not there is an AttributeError, as of any module."""
    script = (
        "import sys, logstore;"
        "after = {'logstore.keeper', 'logstore.check', 'logstore.survey', 'logstore.backup'};"
        "before = after & set(sys.modules);"
        "asked = [getattr(logstore, name).__name__ for name in logstore.__all__];"
        "print(before, after <= set(sys.modules), hasattr(logstore, 'Nonsense'))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set() True False"


@pytest.mark.parametrize("window", [logstore, projections], ids=lambda window: window.__name__)
def test_dir_has_each_public_name_though_it_is_not_loaded(window: ModuleType) -> None:
    """Completion and ``help`` see what can be asked for."""
    script = f"import {window.__name__} as window; print(set(window.__all__) - set(dir(window)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize("window", [logstore, projections], ids=lambda window: window.__name__)
def test_no_public_name_is_that_of_a_module(window: ModuleType) -> None:
    """Whoever imports a module sets its name in the package, so a name loaded later would be the module instead."""
    modules = {module.name for module in pkgutil.iter_modules(window.__path__)}
    assert not modules & {*window.__all__}


def test_importing_projections_loads_what_is_asked_for() -> None:
    """Nothing before that, each name when it is asked for; the table has the names that are public, no other."""
    script = (
        "import sys, projections;"
        "before = [m for m in sys.modules if m.startswith('projections.')];"
        "projections.Index;"
        "asked = 'projections.index' in sys.modules and 'projections.view' not in sys.modules;"
        "all_ = [getattr(projections, name) for name in projections.__all__];"
        "print(before, asked, sorted(projections._MODULES) == sorted(projections.__all__), hasattr(projections, 'No'))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] True True False"
