"""The projection that a verb is told: package.module:Class, or where a collection of documents is declared."""

from __future__ import annotations

import importlib
import sys

import click

from logstore.errors import InvalidArgument
from projections import Collection, Projection

__all__ = ["load_projection", "projection_option"]

projection_option = click.option(
    "--projection",
    "projection",
    required=True,
    metavar="MODULE:NAME",
    help="The projection, or collection of documents, as Python imports it.",
)


def load_projection(text: str) -> Projection:
    """Return the projection that ``text``, package.module:NAME, names; modules of the working directory count."""
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise InvalidArgument(f"needs package.module:Class, or the name of a collection --projection={text}")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ImportError as error:
        raise InvalidArgument(f"cannot be imported --projection={text} cause={error}") from error
    finally:
        sys.path.remove("")
    if isinstance(found, Collection):
        return found.fold()
    if not isinstance(found, type) or not issubclass(found, Projection):
        raise InvalidArgument(f"no subclass of projections.Projection, and no Collection --projection={text}")
    projection = found()
    projection.check()
    return projection
