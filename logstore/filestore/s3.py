"""A FileStore in a bucket of S3, or of a service that speaks its language (Ceph, R2, moto).

``create`` is a PUT with ``If-None-Match: *``; everything else is one plain request. One client,
opened on first use, serves all calls until ``aclose``. Nobody below us retries: not botocore, and
not the HTTP client on a connection that broke. A hidden retry would meet the object of the attempt
before it and report a success as AlreadyExists; retrying is the business of ``RetryingStore``.

What an answer means is decided in one table, ``_translate``:

    412                      the name is taken                          AlreadyExists
    409                      somebody is creating it just now           Unavailable (may not have landed)
    404                      no such object / no such bucket            NotFound / Unavailable
    401, 403                 access denied, token expired, clock off,
                             quota used up: each said apart             Unavailable
    501 to a create          the condition is not implemented           UnsafeStore
    any other, or none       the service or the network is in trouble   Unavailable

Invariants:
- Every key is checked before it is joined to the prefix, so no request leaves ``bucket/prefix``.
- Data is returned only when it is as long as the service said that it would be.
- No credential is ever held, shown or logged here; botocore's own chain finds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.handlers import add_expect_header
from botocore.loaders import Loader, create_loader

from logstore.errors import AlreadyExists, LogStoreError, NotFound, Unavailable, UnsafeStore
from logstore.filestore.base import Blob, Listed, check_key, check_prefix, check_range, is_key

__all__ = ["S3Store"]

CONNECT_TIMEOUT_MS = 5_000  # a service in reach answers within a round trip or two
READ_TIMEOUT_MS = 30_000  # silence on an open connection; RetryingStore's limit is shorter and comes first
CONNECTIONS_MAX = 256  # more than one process can keep busy; fewer would queue creations behind reads


class S3Store:
    """A FileStore under ``prefix`` in ``bucket``.

    ``endpoint_url`` names a service other than AWS (then addressed by path); ``region`` and the
    credentials come from botocore's chain where not given: environment, profile, instance role.
    Costs: one request for each call; see ``FileStore``. The bucket must exist.

    Raises Unavailable with what the service said, UnsafeStore when it refuses conditions.
    """

    remote = True

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
        read_timeout_ms: int = READ_TIMEOUT_MS,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        check_prefix(prefix)
        self._bucket = bucket
        self._root = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._endpoint_url = endpoint_url
        self._region = region
        self._config = AioConfig(
            http_session_cls=_SessionWithoutRetry,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",  # other services choke on the checksums of AWS
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint_url else "auto"},
            connect_timeout=connect_timeout_ms / 1_000,
            read_timeout=read_timeout_ms / 1_000,
            max_pool_connections=connections_max,
        )
        self._client: Any = None
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._client is not None else "not used yet"
        return f"<S3Store bucket={self._bucket} prefix={self._root} {state}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def prefix(self) -> str:
        """What every name in the bucket begins with; it ends in a slash, unless it is empty."""
        return self._root

    # The five verbs ---------------------------------------------------------------------------

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore; returns the time in the answer's ``Date``, in whole seconds."""
        check_key(key)
        answer = await self._ask("create", key, "put_object", Key=self._root + key, Body=data, IfNoneMatch="*")
        return _date_ms(_headers(answer))

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore. A range that holds nothing costs one HEAD more on most services."""
        check_key(key)
        check_range(start, stop)
        asked: dict[str, str] = {"Key": self._root + key}
        if start or stop is not None:
            # HTTP cannot ask for no bytes at all: an empty range asks for one and drops it.
            asked["Range"] = f"bytes={start}-" if stop is None else f"bytes={start}-{max(start, stop - 1)}"
        try:
            answer = await self._ask("get", key, "get_object", **asked)
        except _BeyondTheEnd:
            answer = await self._ask("get", key, "head_object", Key=self._root + key)
            return Blob(b"", answer["ContentLength"], _modified_ms(answer), _date_ms(_headers(answer)))
        data = await self._body(key, answer)
        content_range = answer.get("ContentRange")  # "bytes 5-9/42"
        if content_range is None:  # all of it: not asked for less, or the service knows no ranges
            size, data = len(data), data[start:stop]
        else:
            size, data = int(content_range.rpartition("/")[2]), data[: None if stop is None else stop - start]
            want_bytes = min(size, size if stop is None else stop) - start
            if len(data) != want_bytes:
                raise Unavailable(f"another range than asked for key={key} want={want_bytes} got={content_range}")
        return Blob(data, size, _modified_ms(answer), _date_ms(_headers(answer)))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. Each page is asked for when the one before it is used up."""
        check_prefix(prefix)
        more: dict[str, str] = {"StartAfter": self._root + after} if after else {}
        while True:
            page = await self._ask("list", prefix, "list_objects_v2", Prefix=self._root + prefix, **more)
            for line in page.get("Contents", ()):
                key = line["Key"][len(self._root) :]
                if is_key(key):
                    yield Listed(key, line["Size"], _modified_ms(line))
            if not page.get("IsTruncated"):
                return
            if "NextContinuationToken" not in page:
                raise Unavailable(f"the listing says that it goes on, but not where verb=list key={prefix}")
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, key: str) -> None:
        """See FileStore."""
        check_key(key)
        with suppress(NotFound):  # some services say so; absent is fine
            await self._ask("delete", key, "delete_object", Key=self._root + key)

    async def aclose(self) -> None:
        """See FileStore. Requests under way fail."""
        self._closed = True
        async with self._opening:
            self._client = None
            await self._opened.aclose()

    # Asking -----------------------------------------------------------------------------------

    async def _ask(self, verb: str, key: str, operation: str, **arguments: object) -> Any:
        """Send one request; its parsed answer, or what ``_translate`` makes of a refusal."""
        try:
            client = self._client or await self._open()
            return await getattr(client, operation)(Bucket=self._bucket, **arguments)
        except ClientError as error:
            raise _translate(error, verb, key, self._bucket) from error
        except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(error, verb, key) from error
        except RuntimeError as error:
            if "expired" not in str(error):
                raise
            raise _no_answer(error, verb, key) from error  # botocore's word for new credentials that are old

    async def _body(self, key: str, answer: Mapping[str, Any]) -> bytes:
        """Read the whole body of an answer; a broken or short one is no answer at all."""
        try:
            async with answer["Body"] as body:
                data: bytes = await body.read()
        except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(error, "get", key) from error
        want_bytes = answer.get("ContentLength", len(data))
        if len(data) != want_bytes:
            raise Unavailable(f"the answer was cut short verb=get key={key} want_bytes={want_bytes} got={len(data)}")
        return data

    async def _open(self) -> Any:
        async with self._opening:
            if self._closed:
                raise Unavailable(f"the store is closed bucket={self._bucket}")
            if self._client is None:
                session = get_session()
                session.register_component("data_loader", _descriptions())
                client = aioboto3.Session(botocore_session=session).client(
                    "s3", endpoint_url=self._endpoint_url, region_name=self._region, config=self._config
                )
                opened: Any = await self._opened.enter_async_context(client)
                # "Expect: 100-continue" costs every creation a round trip before its body may leave.
                opened.meta.events.unregister("before-call.s3", add_expect_header)
                self._client = opened
            return self._client


@cache
def _descriptions() -> Loader:
    """What botocore knows of the service: read once for the process, because that takes 150 ms."""
    return create_loader()


class _SessionWithoutRetry(AIOHTTPSession):
    """botocore's HTTP session, without the second PUT that aiohttp sends when a reused connection breaks."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)  # type: ignore[misc]  # untyped, and theirs alone
        session._retry_connection = False  # no public switch; tests/test_filestore_s3.py notices if it goes
        return session


class _BeyondTheEnd(LogStoreError):
    """416: the range starts at or beyond the end. Never leaves this module."""


# What answers mean ----------------------------------------------------------------------------

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}  # told with status 400
_FULL = {"QuotaExceeded", "InsufficientCapacity"}  # told with status 403 or 507: no right is wanting, but room


def _translate(error: ClientError, verb: str, key: str, bucket: str) -> LogStoreError:
    answer: Mapping[str, Any] = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    now_ms = _date_ms(_headers(answer))
    facts = f"verb={verb} key={key} status={status} code={code}"
    if code == "NoSuchBucket" or (verb == "list" and status == 404):
        return Unavailable(f"there is no such bucket; create it or correct the address bucket={bucket} {facts}")
    if code in _EXPIRED:
        return Unavailable(f"access denied; the credentials have expired or are not valid {facts}")
    if code == "RequestTimeTooSkewed":
        return Unavailable(f"this machine's clock is off, so nothing it signs is taken; repair its time {facts}")
    if code in _FULL:
        return Unavailable(f"the store is full, or its quota used up; make room or raise the quota {facts}")
    match status:
        case 412 if verb == "create":
            return AlreadyExists(f"the name is taken key={key}", now_ms=now_ms)
        case 404 if verb != "create":
            return NotFound(f"no such object key={key}", now_ms=now_ms)
        case 409:
            return Unavailable(f"somebody else is changing this name just now {facts}")
        case 416 if verb == "get":
            return _BeyondTheEnd(facts)
        case 401 | 403:
            return Unavailable(f"access denied; check the credentials and what they permit {facts}")
        case 501 if verb == "create":
            return UnsafeStore(f"the service does not implement create-if-absent {facts}")
        case 301 | 307 | 308:
            return Unavailable(f"the bucket lives in another region or at another endpoint bucket={bucket} {facts}")
        case _:
            return Unavailable(f"the service refused {facts}")


def _no_answer(error: Exception, verb: str, key: str) -> Unavailable:
    """Its own text stays in the cause: it can name addresses that do not belong in our messages."""
    facts = f"verb={verb} key={key} reason={type(error).__name__}"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return Unavailable(
            f"no credentials were found, so nothing was asked {facts};"
            " set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, CredentialRetrievalError | RuntimeError):
        return Unavailable(
            f"the credentials have expired and no new ones were found, so nothing was asked {facts};"
            " see to what AWS_PROFILE or the instance's role names"
        )
    if isinstance(error, EndpointConnectionError):
        return Unavailable(f"nobody answers at the store's endpoint; check endpoint_url, and the network {facts}")
    return Unavailable(f"the service gave no whole answer {facts}")


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def _date_ms(headers: Mapping[str, str]) -> int | None:
    """The service's time when it answered (Unix ms), None when it told none that can be read."""
    try:
        return int(parsedate_to_datetime(headers["date"]).timestamp()) * 1_000
    except (KeyError, ValueError):
        return None


def _modified_ms(answer: Mapping[str, Any]) -> int | None:
    modified = answer.get("LastModified")
    return None if modified is None else int(modified.timestamp() * 1_000)
