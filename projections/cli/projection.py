"""The projection that a verb is told: package.module:Class."""

from __future__ import annotations

import importlib
import sys

import click

from logstore.errors import InvalidArgument
from projections import Projection

__all__ = ["load_projection", "projection_option"]

projection_option = click.option(
    "--projection", "projection", required=True, metavar="MODULE:CLASS", help="The projection, as Python imports it."
)


def load_projection(text: str) -> Projection:
    """Return the projection that ``text``, package.module:Class, names; modules of the working directory count."""
    module_name, _, class_name = text.partition(":")
    if not module_name or not class_name:
        raise InvalidArgument(f"needs package.module:Class --projection={text}")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ImportError as error:
        raise InvalidArgument(f"cannot be imported --projection={text} cause={error}") from error
    finally:
        sys.path.remove("")
    if not isinstance(found, type) or not issubclass(found, Projection):
        raise InvalidArgument(f"no subclass of projections.Projection --projection={text}")
    projection = found()
    projection.check()
    return projection
