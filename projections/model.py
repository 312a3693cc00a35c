"""Models: documents as the caller's own classes, dataclasses or pydantic models. Pure.

A field that a model does not know is left out, and an update leaves it alone: a process of an older release works on.
A document that is not as its model says is InvalidArgument: it is the caller's argument.

pydantic is not needed: a model is whatever has ``model_validate`` and ``model_dump``, or is a dataclass. Of a dataclass
the fields that are dataclasses, or lists, tuples or maps of such, are made so, too.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from logstore.errors import InvalidArgument
from logstore.event import Data
from projections.patch import thawed

__all__ = ["PLAIN", "Model", "model_of"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Model(Generic[T]):
    """How documents become objects: ``load`` gets one that is read-only; and objects documents: ``dump``."""

    load: Callable[[Data], T]
    dump: Callable[[T], Data]


def _mapping(document: object) -> Data:
    if not isinstance(document, Mapping):
        raise InvalidArgument(f"a document is a mapping document={document!r:.60}")
    return document


PLAIN: Model[Any] = Model(load=lambda document: document, dump=_mapping)


def model_of(cls: type[T]) -> Model[T]:
    """Return how documents become objects of ``cls``. Raises InvalidArgument for a class that is no model.

    >>> @dataclasses.dataclass
    ... class Deployment:
    ...     status: int = 0
    >>> model_of(Deployment).load({"status": 1})
    Deployment(status=1)
    """
    if hasattr(cls, "model_validate") and hasattr(cls, "model_dump"):
        return _checked(cls, lambda document: _validated(cls, document), _dumped)
    if dataclasses.is_dataclass(cls):
        return _checked(cls, lambda document: _made(cls, document), dataclasses.asdict)
    raise InvalidArgument(f"a model is a dataclass or a pydantic model model={cls!r:.60}")


def _checked(cls: type[T], load: Callable[[Data], T], dump: Callable[[Any], Data]) -> Model[T]:
    def dump_of(document: T) -> Data:
        if not isinstance(document, cls):
            raise InvalidArgument(f"needs a {cls.__name__}, or a mapping document={document!r:.60}")
        return dump(document)

    return Model(load, dump_of)


def _validated(cls: Any, document: Data) -> Any:
    try:
        return cls.model_validate(thawed(document))
    except ValueError as error:  # pydantic's ValidationError is one
        cause = " ".join(str(error).split())
        raise InvalidArgument(f"a document is not as its model says model={cls.__name__} cause={cause:.200}") from error


def _dumped(model: Any) -> Data:
    dumped: Data = model.model_dump(mode="json")
    return dumped


def _made(hint: Any, value: Any) -> Any:
    """``value`` as its annotation wants it."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        hints = _hints(hint if isinstance(hint, type) else type(hint))
        return _made_of(hint, {name: _made(hints[name], item) for name, item in value.items() if name in hints})
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        models = [each for each in arguments if each is not type(None)]
        return _made(models[0], value) if len(models) == 1 and value is not None else value
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return origin(_made(arguments[0], item) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {name: _made(arguments[1], item) for name, item in value.items()}
    return thawed(value)


def _made_of(model: Any, values: dict[str, Any]) -> Any:
    fields = [field for field in dataclasses.fields(model) if field.init]
    required = (dataclasses.MISSING, dataclasses.MISSING)
    missing = [
        field.name
        for field in fields
        if field.name not in values and (field.default, field.default_factory) == required
    ]
    if missing:
        raise InvalidArgument(f"a document is not as its model says model={model.__name__} missing={missing}")
    return model(**{field.name: values[field.name] for field in fields if field.name in values})


@lru_cache(maxsize=1_000)
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)
