"""Stores: where objects lie, behind the five verbs of ``FileStore``.

>>> import asyncio
>>> async def example():
...     store = open_filestore("memory://docs")
...     await store.create("greetings/1", b"hello")
...     return (await store.get("greetings/1", 1, 4)).data
>>> asyncio.run(example())
b'ell'

Behaviour stacks around a store: ``RetryingStore(MeteredStore(open_filestore(url)))``.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from logstore.errors import InvalidArgument
from logstore.filestore.base import Blob, FileStore, Listed
from logstore.filestore.local import LocalStore
from logstore.filestore.memory import MemoryStore
from logstore.filestore.probe import Finding, probe, require_safe
from logstore.filestore.wrappers import (
    MeteredStore,
    RetryingStore,
    RetrySettings,
    StoreStatistics,
    TracedStore,
    VerbStatistics,
)

__all__ = [
    # The promise, and the values it speaks in
    "FileStore",
    "Blob",
    "Listed",
    # Where objects lie (S3Store is in logstore.filestore.s3: importing it costs a second)
    "open_filestore",
    "LocalStore",
    "MemoryStore",
    # Behaviour around a store
    "RetryingStore",
    "RetrySettings",
    "MeteredStore",
    "TracedStore",
    "StoreStatistics",
    "VerbStatistics",
    # Whether a store keeps the promise
    "probe",
    "require_safe",
    "Finding",
]

_memory_stores: dict[str, MemoryStore] = {}


def open_filestore(url: str) -> FileStore:
    """Return the store at ``url``; nothing is asked of it, or made in it, before it is used.

    ``memory://name``                                  the same name is the same store, within this process
    ``file:///directory``                              an absolute path; made on the first creation
    ``s3://bucket/prefix?endpoint_url=…&region=…``     both options may be left out; credentials come from
                                                       the environment as botocore finds them, never from here

    Raises InvalidArgument for anything else, without repeating the address: it might hold a secret.
    """
    try:
        parts = urlsplit(url)
        has_user = "@" in parts.netloc
    except ValueError as error:
        raise InvalidArgument("not an address; use memory://name, file:///directory or s3://bucket/prefix") from error
    if has_user:
        raise InvalidArgument(f"no credentials in a store's address; put them in the environment scheme={parts.scheme}")
    match parts.scheme:
        case "memory":
            return _open_memory(parts)
        case "file":
            return _open_local(parts)
        case "s3":
            return _open_s3(parts)
        case _:
            raise InvalidArgument("no such kind of store; use memory://name, file:///directory or s3://bucket/prefix")


def _open_memory(parts: SplitResult) -> FileStore:
    if not parts.netloc or parts.path or parts.query or parts.fragment:
        raise InvalidArgument("a store in memory has a name and nothing else; use memory://name")
    return _memory_stores.setdefault(parts.netloc, MemoryStore())


def _open_local(parts: SplitResult) -> FileStore:
    path = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or path in ("", "/") or "\0" in path:
        raise InvalidArgument("a local store has an absolute path and nothing else; use file:///directory")
    return LocalStore(path)


def _open_s3(parts: SplitResult) -> FileStore:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - {"endpoint_url", "region"}):
        raise InvalidArgument(f"no such option of a store in S3; there are endpoint_url and region option={unknown[0]}")
    if not parts.netloc or ":" in parts.netloc or parts.fragment:
        raise InvalidArgument("a store in S3 has a bucket; use s3://bucket/prefix?endpoint_url=…&region=…")
    if (endpoint_url := options.get("endpoint_url") or None) is not None:
        try:
            endpoint = urlsplit(endpoint_url)
            usable = endpoint.scheme in ("http", "https") and bool(endpoint.hostname) and "@" not in endpoint.netloc
        except ValueError:
            usable = False
        if not usable:
            raise InvalidArgument("endpoint_url must be http:// or https:// with a host and without credentials")
    from logstore.filestore.s3 import S3Store  # not at the top: it takes a second to import

    prefix = unquote(parts.path).strip("/")
    return S3Store(parts.netloc, prefix=prefix, endpoint_url=endpoint_url, region=options.get("region") or None)
