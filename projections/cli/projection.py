"""What a verb is told by package.module:NAME: a projection, collections of documents, what their values are called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from logstore.errors import InvalidArgument
from projections import Collection, Projection
from projections.model import Model, model_of

__all__ = ["load_collection", "load_collections", "load_labels", "load_model", "load_projection", "projection_option"]

projection_option = click.option(
    "--projection",
    "projection",
    required=True,
    metavar="MODULE:NAME",
    help="The projection, or collection of documents, as Python imports it.",
)


def load_projection(text: str) -> Projection:
    """Return the projection that ``text``, package.module:NAME, names; modules of the working directory count."""
    found = _load(text, "--projection", "package.module:Class, or the name of a collection")
    if isinstance(found, Collection):
        return found.fold()
    if not isinstance(found, type) or not issubclass(found, Projection):
        raise InvalidArgument(f"no subclass of projections.Projection, and no Collection --projection={text}")
    projection = found()
    projection.check()
    return projection


def load_collection(text: str) -> Collection:
    """Return the one collection that ``text`` names."""
    found = _load(text, "--collection", "package.module:NAME")
    if isinstance(found, list | tuple):
        raise InvalidArgument(f"names several collections --collection={text}; name one of them")
    if not isinstance(found, Collection):
        raise InvalidArgument(f"no Collection --collection={text}")
    return found


def load_collections(text: str) -> Sequence[Collection]:
    """Return the collection, or the collections, that ``text`` names."""
    found = _load(text, "--collections", "package.module:NAME")
    several = found if isinstance(found, list | tuple) else [found]
    if not several or not all(isinstance(each, Collection) for each in several):
        raise InvalidArgument(f"no Collection, and no list or tuple of such --collections={text}")
    return several


def load_labels(text: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what ``text`` names: by kind and field, what its values are called."""
    found = _load(text, "--labels", "package.module:NAME")
    if not isinstance(found, Mapping) or not all(isinstance(each, Mapping) for each in found.values()):
        raise InvalidArgument(f"not {{kind: {{field: an enum, or a map}}}} --labels={text}")
    return found


def load_model(text: str) -> Model[Any]:
    """Return how documents become objects of the class that ``text`` names."""
    found = _load(text, "--model", "package.module:Class")
    if not isinstance(found, type):
        raise InvalidArgument(f"no class --model={text}; a model is a dataclass or a pydantic model")
    return model_of(found)


def _load(text: str, option: str, form: str) -> Any:
    module_name, _, name = text.partition(":")
    if not all(map(str.isidentifier, [*module_name.split("."), name])):
        raise InvalidArgument(f"needs {form} {option}={text if text.isprintable() else repr(text):.100}")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module_name), name, None)
    except Exception as error:  # whatever the user's module raises
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidArgument(
            f"cannot be imported {option}={text} cause={cause:.200};"
            " modules are looked for in this directory, then where Python looks"
        ) from error
    finally:
        sys.path.remove("")
