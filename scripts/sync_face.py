"""Write the sync face: `logstore/sync.py` and `projections/sync.py`, from the classes of the asyncio API.

    python scripts/sync_face.py            write both
    python scripts/sync_face.py --check    say whether they are as this would write them; exit status 1 if not

What a shop window shows and never waits (values, settings, errors) is shown again as it is. Of the rest each class gets
a face: the same methods, parameters and docstrings, with `await` and `async` taken out. Source is written, so that an
editor, a type checker and a reader find what they expect; only `logstore/background.py` is written by hand.

Whatever this does not understand it refuses: a new public method either has its place in the face, or in `INNER`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PACKAGES = ("logstore", "projections")

# Not shown: what one module hands another to wait for.
INNER = {
    "Writer": {"read_tick", "open_slots", "appended"},
    "Log": {"snapshots", "pins", "claims", "stage_chain", "follower", "follower_from", "lead", "tracer"},
    "Reader": {"keep_trail", "start_follower", "events_by_run", "led_kinds"},
    "View": {"subscribe", "led_kinds"},
}
# Users implement these, for the loop to call.
COMPONENTS = {"FileStore", "Clock", "Tracer"}
# Users construct these themselves; others are made by what hands them out.
CONSTRUCTED = {"StageLogs"}
# Attributes that are no property have no docstring to take.
ATTRIBUTES = {
    ("Writer", "name"): "Under which name it appends.",
    ("Reader", "damage"): "What a reader that skips damage has met, in the order met.",
    ("View", "damage"): "What was wrong with snapshots that were passed over.",
    ("PastView", "damage"): "What was wrong with snapshots that were passed over.",
    ("Documents", "view"): "The rows behind it; a document is their field ``doc``.",
    ("WriteReceipt", "receipt"): "Where the write is stored.",
    ("Transaction", "receipt"): "Where the commit is stored, once it is; None where nothing was written.",
}
DUNDERS = {"__aenter__", "__aexit__", "__aiter__", "__len__", "__contains__", "__call__"}

WINDOW_DOCS = {
    "logstore": '''
"""The log, for callers without an event loop: the names of ``logstore``, with nothing to await.

>>> import logstore.sync as logstore
>>> from logstore.sync import Event
>>> with logstore.open("memory://sync") as log, log.writer("web-1") as writer:
...     receipt = writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
...     [(event.key, event.data["status"]) for event in log.read()]
[('d-1', 1)]

Any number of threads may call. One event loop does the work, in a thread of its own, for the whole process; it starts
at the first use. When the main thread ends, what is open is closed, and calls of other threads end with an error.

Cost, beside that of the asyncio API (two cores; more where other threads compute): what is awaited there, 40
microseconds; what only looks (``statistics()``, a view's ``get``), 1 while the loop rests, 30 while it works; an event
of a reader, 0, and a wait for each segment; a step of another iterator, a wait.

An interrupt (Ctrl-C) cancels the call that waits. ``close()`` of an iterator ends it, also while another thread waits
in it; so does letting go of it. Leaving a ``with`` ends what other threads still wait for within it. Functions that
you pass (to ``update``, folds, guards) are called by the loop: they may look, and must not wait. After a fork nothing
of the parent's can be used in the child; open it again there.

Written by ``scripts/sync_face.py``: do not edit.
"""
''',
    "projections": '''
"""The read side, for callers without an event loop: the names of ``projections``, with nothing to await.

>>> import logstore.sync as logstore
>>> from logstore.sync import Event
>>> from projections.sync import Index, Projection, View
>>> class Deployments(Projection):
...     name, kinds, fold = "deployments", {"Deployment"}, "patch"
...     indexes = (Index("project_id", "-updated_at"),)
>>> with logstore.open("memory://sync-projections") as log, log.writer("web-1") as writer:
...     receipt = writer.append(Event("Deployment", "d-1", "planned", {"project_id": "p", "updated_at": 7}))
...     with View.open(log, Deployments()) as view:
...         view.find(where=[("project_id", "==", "p")], order_by=["-updated_at"], limit=30).keys
['d-1']

Each read (``get``, ``find``, ``count``…) is of one moment, rows and indexes alike, and costs 1 microsecond more than
there, or 30 while the loop works; between two reads the view may move. For the rest see ``logstore.sync``.

Written by ``scripts/sync_face.py``: do not edit.
"""
''',
}


class Source:
    """A module's text, and where its names come from."""

    _known: ClassVar[dict[str, Source]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(name)
        self.tree = ast.parse(inspect.getsource(self.module))
        self.imports: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                self.imports |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
        self.definitions = {
            node.name: node
            for node in self.tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }

    @classmethod
    def of(cls, name: str) -> Source:
        """The source of a module, read once."""
        if name not in cls._known:
            cls._known[name] = cls(name)
        return cls._known[name]

    def origin(self, name: str) -> tuple[str, str]:
        """The module that defines a name used here, and the name there."""
        if name in self.imports:
            module, original = self.imports[name]
            if module.split(".")[0] in PACKAGES:
                return Source.of(module).origin(original)
            return module, original
        return self.name, name


def words(node: ast.AST | None) -> set[str]:
    """The names in an annotation or a default."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} if node is not None else set()


def methods(source: Source, definition: ast.ClassDef) -> Iterator[tuple[Source, ast.stmt]]:
    """Each statement of a class and of those it extends, its own first."""
    yield from ((source, statement) for statement in definition.body)
    for base in definition.bases:
        module, name = source.origin(base.id) if isinstance(base, ast.Name) else ("", "")
        if module.split(".")[0] in PACKAGES and isinstance(
            extended := Source.of(module).definitions.get(name), ast.ClassDef
        ):
            yield from methods(Source.of(module), extended)


def is_public(name: str) -> bool:
    """Whether a face has it."""
    return not name.startswith("_") or name in DUNDERS


def yields(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it returns an asynchronous iterator."""
    return bool(words(node.returns) & {"AsyncGenerator", "AsyncIterator"})


def waits(source: Source, definition: ast.AST) -> bool:
    """Whether a class is one whose callers wait."""
    if not isinstance(definition, ast.ClassDef):
        return False
    functions = [
        each for _, each in methods(source, definition) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return any(isinstance(each, ast.AsyncFunctionDef) or yields(each) for each in functions)


def shown(package: str) -> dict[str, tuple[Source, str]]:
    """The names of a window, each with where it is defined."""
    window = Source.of(package)
    found = {}
    for name in window.module.__all__:
        module, original = window.origin(name)
        found[name] = (Source.of(module), original)
    return found


def faced(package: str) -> set[str]:
    """The classes of a window that get a face."""
    return {
        name
        for name, (source, original) in shown(package).items()
        if name not in COMPONENTS and waits(source, source.definitions.get(original, ast.Pass()))
    }


class Writing:
    """One window, being written."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.shown = shown(package)
        self.faced = {name: each for each in PACKAGES for name in faced(each)}
        self.imports: set[str] = set()
        self.lines: list[str] = []

    # Names

    def bring(self, source: Source, node: ast.AST | None) -> None:
        """Import what an annotation or a default refers to."""
        for name in words(node):
            module, original = source.origin(name)
            if module == source.name and original not in vars(source.module) and original not in self.faced:
                continue  # a builtin
            if original in self.faced:
                if self.faced[original] != self.package:
                    self.imports.add(f"from {self.faced[original]}.sync import {original}")
            elif inspect.ismodule(getattr(source.module, name, None)):
                self.imports.add(f"import {name}")
            else:
                self.bring_name(module, original)

    def bring_name(self, module: str, name: str, alias: str = "") -> None:
        """Import a name of the asyncio API, which is not one that waits."""
        if module.partition(".")[0] in PACKAGES and not alias and name not in COMPONENTS:
            source = Source.of(module)
            if waits(source, source.definitions.get(name, ast.Pass())):
                raise SystemExit(f"{module}.{name} waits, and no window shows it: show it, or name its member in INNER")
        name = "Generator" if name in ("AsyncGenerator", "AsyncIterator") else name
        self.imports.add(f"from {module} import {name}" + (f" as {alias}" if alias else ""))

    def asynchronous(self, name: str) -> str:
        """Import what a face is of; return its name here."""
        source, original = self.shown[name]
        alias = f"Async{name}" if name[0].isupper() else f"async_{name}"
        self.bring_name(source.name, original, alias)
        return alias

    # Functions

    def signature(self, source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        """Parameters and what is returned, as in the asyncio API; an asynchronous iterator is a generator."""
        arguments = node.args
        for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            self.bring(source, each.annotation)
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            self.bring(source, default)
        self.bring(source, node.returns)
        returns = ast.unparse(node.returns) if node.returns else "None"
        returns = re.sub(r"AsyncIterator\[(.*)\]", r"Generator[\1, None, None]", returns)
        returns = re.sub(r"AsyncGenerator\[(.*), None\]", r"Generator[\1, None, None]", returns)
        return f"({ast.unparse(arguments)}) -> {returns}"

    def arguments(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        """The parameters, passed on: a face as what is behind it."""
        arguments = node.args
        if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
            raise SystemExit(f"teach me the parameters of {node.name}")

        def value(each: ast.arg) -> str:
            if not words(each.annotation) & self.faced.keys():
                return each.arg
            assert isinstance(each.annotation, ast.Name), f"teach me {ast.unparse(each)} of {node.name}"
            return f"inner({each.arg})"

        plain = [value(each) for each in arguments.args if each.arg not in ("self", "cls")]
        return ", ".join([*plain, *(f"{each.arg}={value(each)}" for each in arguments.kwonlyargs)])

    def body(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, function: str, *, of_self: bool, overloaded: bool
    ) -> Iterator[str]:
        """What a function of the face does."""
        faces = [each.arg for each in node.args.args if words(each.annotation) & self.faced.keys()]
        within = "self" if of_self else next(iter(faces), "")
        prefix, suffix = ("self._", "") if of_self else ("", f", {within}" if within else "")
        if overloaded:
            yield f"function: Any = {function}"
            self.imports.add("from typing import Any")
            function = "function"
        arguments = self.arguments(node)
        comma = ", " if arguments else ""
        look = f"{prefix}look({function}{comma}{arguments})"
        returned = words(node.returns) & self.faced.keys()
        is_none = node.returns is None or ast.unparse(node.returns) == "None"
        assert not returned or ast.unparse(node.returns or node).split("[")[0] in {
            *returned,
            " | ".join(sorted(returned, reverse=True)),
        }
        if yields(node):
            yield f"return {prefix}iterate({look}{suffix})"
        elif isinstance(node, ast.AsyncFunctionDef):
            call = f"{prefix}wait({function}({arguments}){suffix})"
            if returned:
                call = f"{next(iter(returned))}({call}{', self' if of_self else suffix})"
            yield call if is_none else f"return {call}"
        elif len(returned) == 2:
            yield f"made = {look}"
            first, second = sorted(returned)
            is_first = f"isinstance(made, {self.asynchronous(first)})"
            yield f"return {first}(made{suffix}) if {is_first} else {second}(made{suffix})"
        elif returned:
            yield f"return {next(iter(returned))}({look}{', self' if of_self else suffix})"
        elif words(node.returns) & {"Iterable", "Iterator"}:
            yield f"return {prefix}look(lambda: list({function}({arguments})))"
        else:
            yield look if is_none else f"return {look}"

    def function(self, name: str) -> None:
        """A function of the window."""
        source, original = self.shown[name]
        node = source.definitions[original]
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        self.lines += ["", "", f"def {name}{self.signature(source, node)}:", *self.doc(node, 4)]
        self.lines += [
            f"    {line}" for line in self.body(node, self.asynchronous(name), of_self=False, overloaded=False)
        ]

    # Classes

    def face(self, name: str) -> None:
        """A class of the window."""
        source, original = self.shown[name]
        definition = source.definitions[original]
        assert isinstance(definition, ast.ClassDef)
        generic = next((ast.unparse(base.slice) for base in definition.bases if isinstance(base, ast.Subscript)), "")
        alias = self.asynchronous(name)
        if generic:
            self.bring(source, ast.Name(generic))
            self.imports.add("from typing import Generic")
        bases = f"Face[{alias}[{generic}]], Generic[{generic}]" if generic else f"Face[{alias}]"
        self.lines += ["", "", f"class {name}({bases}):", *self.doc(definition, 4)]
        if name in CONSTRUCTED:
            self.constructor(source, definition, alias)
        seen: set[str] = set()
        overloads: set[str] = set()
        for where, node in methods(source, definition):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name == "__init__":
                self.attributes(name, where, node, seen)
            decorators = [ast.unparse(each) for each in node.decorator_list]
            if "overload" in decorators:
                overloads.add(node.name)
            elif node.name in seen:
                continue
            else:
                seen.add(node.name)
            if is_public(node.name) and node.name not in INNER.get(name, ()):
                self.method(where, node, alias, decorators, overloaded=node.name in overloads)

    def method(
        self,
        source: Source,
        node: ast.FunctionDef | ast.AsyncFunctionDef,
        alias: str,
        decorators: list[str],
        *,
        overloaded: bool,
    ) -> None:
        """A method, a property, or what makes it work with ``with``, ``for`` and the like."""
        lines = [""]
        match node.name:
            case "__aenter__":
                assert isinstance(node.returns, ast.Name)
                lines += [f"def __enter__(self) -> {node.returns.id}:", "    self._enter()", "    return self"]
            case "__aexit__":
                self.imports.add("from types import TracebackType")
                kinds = "kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None"
                lines += [f"def __exit__(self, {kinds}) -> None:", "    self._exit(kind, error, traceback)"]
            case "__aiter__":  # a reader: by the run
                lines += [
                    f"def __iter__{self.signature(source, node)}:",
                    "    return self._resume(self._inner.events_by_run)",
                ]
            case "__len__":
                lines += ["def __len__(self) -> int:", "    return self._look(len, self._inner)"]
            case "__contains__":
                lines += [
                    f"def __contains__{self.signature(source, node)}:",
                    f"    return self._look(lambda: {node.args.args[1].arg} in self._inner)",
                ]
            case name if "overload" in decorators:
                self.imports.add("from typing import overload")
                lines = [f"@{each}" for each in decorators] + [f"def {name}{self.signature(source, node)}: ..."]
            case name:
                lines = [] if overloaded else [""]
                lines += [f"@{each}" for each in decorators]
                lines += [f"def {name}{self.signature(source, node)}:", *self.doc(node, 4)]
                if "property" in decorators:
                    lines += self.look_at(name, node.returns)
                else:
                    of_class = "classmethod" in decorators
                    function = f"{alias if of_class else 'self._inner'}.{name}"
                    body = self.body(node, function, of_self=not of_class, overloaded=overloaded)
                    lines += [f"    {line}" for line in body]
        self.lines += [f"    {line}" if line else "" for line in lines]

    def look_at(self, name: str, annotation: ast.AST | None) -> list[str]:
        """What a property does."""
        look = f"self._look(lambda: self._inner.{name})"
        face = next(iter(words(annotation) & self.faced.keys()), None)
        return [f"    return {face}({look}, self)" if face else f"    return {look}"]

    def attributes(
        self, name: str, source: Source, constructor: ast.FunctionDef | ast.AsyncFunctionDef, seen: set[str]
    ) -> None:
        """Properties for the public attributes that a constructor sets."""
        parameters = {each.arg: each.annotation for each in constructor.args.args + constructor.args.kwonlyargs}
        for node in ast.walk(constructor):
            match node:
                case ast.AnnAssign(target=ast.Attribute(attr=attribute), annotation=declared):
                    annotation: ast.expr | None = declared
                case ast.Assign(targets=[ast.Attribute(attr=attribute)], value=ast.Name(id=parameter)):
                    annotation = parameters.get(parameter)
                case _:
                    continue
            if attribute.startswith("_") or attribute in seen:
                continue
            seen.add(attribute)
            assert annotation is not None
            self.bring(source, annotation)
            lines = ["@property", f"def {attribute}(self) -> {ast.unparse(annotation)}:"]
            lines += [f'    """{ATTRIBUTES[name, attribute]}"""', *self.look_at(attribute, annotation)]
            self.lines += ["", *(f"    {line}" for line in lines)]

    def constructor(self, source: Source, definition: ast.ClassDef, alias: str) -> None:
        """For those that users construct."""
        node = next(each for each in definition.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
        face = node.args.args[1].arg
        self.lines += ["", f"    def __init__{self.signature(source, node)}:"]
        self.lines += [f"        super().__init__({alias}({self.arguments(node)}), {face})"]

    # Texts

    def doc(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, indent: int) -> list[str]:
        """A docstring, as it reads where nothing is awaited."""
        text = ast.get_docstring(node)
        if text is None:
            return []
        assert "\\" not in text
        lines = [f"{' ' * indent}{line}".rstrip() for line in f'"""{plain(text)}"""'.splitlines()]
        return [*lines[:-1], lines[-1].removesuffix('"""'), f'{" " * indent}"""'] if len(lines) > 1 else lines

    def text(self) -> str:
        """The whole module."""
        for name, (source, original) in self.shown.items():
            node = source.definitions.get(original)
            if name in self.faced:
                self.face(name)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.function(name)
            else:
                self.imports.add(f"from {source.name} import {original}")
        body = "\n".join(self.lines)
        used = [
            name
            for name in ("Face", "inner", "iterate", "look", "wait")
            if re.search(rf"(?<![.\w]){name}\b[(\[]", body)
        ]
        self.imports.add(f"from logstore.background import {', '.join(used)}")
        exported = re.search(
            r"^__all__ = \[.*?^\]", inspect.getsource(Source.of(self.package).module), re.MULTILINE | re.DOTALL
        )
        assert exported is not None
        document = WINDOW_DOCS[self.package].strip()
        head = ["from __future__ import annotations", "", *sorted(self.imports), "", exported[0]]
        return "\n".join([document, "", *head, body, ""])


def plain(text: str) -> str:
    """Words and examples without ``async`` and ``await``; examples in stores of their own."""
    for pattern, instead in (
        (r"\basync (with|for|def|iterator)\b", r"\1"),
        (r"\ban async\b", "an"),
        (r"\(await (.*?\))\)\.", r"\1."),
        (r"\bawait ", ""),
        (r"\bopen_log\(", "open("),
        (r">>> asyncio\.run\((.*)\)$", r">>> \1"),
        (r"^( *)>>> import asyncio\n", ""),
        (r">>> import asyncio, ", ">>> import "),
        (r">>> import logstore$", ">>> import logstore.sync as logstore"),
        (r">>> from (logstore|projections) import", r">>> from \1.sync import"),
        (r"memory://", "memory://sync-"),
    ):
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def in_form(text: str) -> str:
    """What the formatter makes of it."""
    ruff = [sys.executable, "-m", "ruff"]
    for command in ([*ruff, "check", "--fix", "--quiet", "--select=I,F401", "-"], [*ruff, "format", "--quiet", "-"]):
        text = subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return text


def written(package: str) -> str:
    """The face of a package's window, as it should be."""
    return in_form(Writing(package).text())


def main() -> int:
    """Write, or check."""
    status = 0
    for package in PACKAGES:
        path = ROOT / package / "sync.py"
        text = written(package)
        if "--check" in sys.argv and path.read_text() != text:
            print(f"{path.relative_to(ROOT)} is not as scripts/sync_face.py writes it: run that", file=sys.stderr)
            status = 1
        elif "--check" not in sys.argv:
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
