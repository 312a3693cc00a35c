"""S3Store against a service that says exactly what each test wants: refusals, lost answers, cut bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from logstore.errors import AlreadyExists, InvalidArgument, LogStoreError, NotFound, Unavailable, UnsafeStore
from logstore.filestore.s3 import S3Store

DATE = "Wed, 12 Feb 2025 10:00:07 GMT"
DATE_MS = 1_739_354_407_000
LOST = b""  # the connection is closed without an answer


def answer(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Date: {DATE}",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status: int, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())


def page(*keys: str, more: str = "") -> bytes:
    lines = "".join(
        f"<Contents><Key>{key}</Key><Size>3</Size><LastModified>2025-02-12T10:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    truncated = "true" if more else "false"
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more not in ("", "nowhere") else ""
    return answer(
        200, f"<ListBucketResult>{lines}<IsTruncated>{truncated}</IsTruncated>{token}</ListBucketResult>".encode()
    )


@dataclass
class Request:
    verb: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """An HTTP server on loopback that notes each request and gives the next of its scripted answers, then 500s.

    A short answer, or none, closes the connection; the others leave it open, so that it is used again.
    """

    answers: list[bytes] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    hang: bool = False
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                verb, target, _ = lines[0].split(" ")
                headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append(Request(verb, target, headers, body))
                if self.hang:
                    await reader.read()  # until the client gives up
                    return
                text = self.answers.pop(0) if self.answers else refusal(500, "InternalError")
                writer.write(text)
                await writer.drain()
                if text == LOST or b"Content-Length: 99999" in text:
                    return
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield service
    server.close()


@pytest.fixture
async def store(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    store = S3Store("bucket", prefix="some/where", endpoint_url=service.url, region="us-east-1")
    yield store
    await store.aclose()


async def first_of_list(store: S3Store) -> None:
    async for _ in store.list("a/"):
        return


CREATE: Callable[[S3Store], Awaitable[object]] = lambda store: store.create("a/b", b"data")  # noqa: E731
GET: Callable[[S3Store], Awaitable[object]] = lambda store: store.get("a/b")  # noqa: E731
DELETE: Callable[[S3Store], Awaitable[object]] = lambda store: store.delete("a/b")  # noqa: E731


async def test_a_creation_is_one_conditional_put(service: Service, store: S3Store) -> None:
    """One PUT with If-None-Match under the prefix, its body as it is, and the service's time returned."""
    service.answers = [answer(200)]
    assert await store.create("a/b%2F", b"data") == DATE_MS
    (request,) = service.requests
    assert (request.verb, request.target, request.body) == ("PUT", "/bucket/some/where/a/b%252F", b"data")
    assert request.headers["if-none-match"] == "*"
    assert "content-encoding" not in request.headers
    assert "expect" not in request.headers, "a round trip before the body may leave"
    assert not [name for name in request.headers if "checksum" in name or "trailer" in name]


async def test_412_is_a_taken_name(service: Service, store: S3Store) -> None:
    """Only 412 says AlreadyExists, and it comes with the service's time."""
    service.answers = [refusal(412, "PreconditionFailed")]
    with pytest.raises(AlreadyExists) as caught:
        await CREATE(store)
    assert caught.value.now_ms == DATE_MS


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted", "ConcurrentModification"])
async def test_409_may_not_have_landed(service: Service, store: S3Store, code: str) -> None:
    """A conflict with a creation under way says nothing about the outcome: Unavailable, never AlreadyExists."""
    service.answers = [refusal(409, code)]
    with pytest.raises(Unavailable, match=f"status=409 code={code}"):
        await CREATE(store)


@pytest.mark.parametrize(
    ("status", "code", "call", "error", "text"),
    [
        (404, "NoSuchKey", GET, NotFound, "key=a/b"),
        (404, "NoSuchKey", DELETE, None, ""),
        (404, "NoSuchBucket", GET, Unavailable, "no such bucket.*bucket=bucket"),
        (404, "NoSuchBucket", CREATE, Unavailable, "no such bucket"),
        (404, "NoSuchBucket", DELETE, Unavailable, "no such bucket"),
        (404, "NoSuchBucket", first_of_list, Unavailable, "no such bucket"),
        (404, "Whatever", CREATE, Unavailable, "status=404"),
        (403, "AccessDenied", GET, Unavailable, "access denied"),
        (403, "InvalidAccessKeyId", CREATE, Unavailable, "access denied"),
        (403, "RequestTimeTooSkewed", CREATE, Unavailable, "^this machine's clock is off.*code=RequestTimeTooSkewed"),
        (403, "QuotaExceeded", CREATE, Unavailable, "^the store is full.*raise the quota"),
        (507, "InsufficientCapacity", CREATE, Unavailable, "^the store is full.*make room"),
        (400, "ExpiredToken", CREATE, Unavailable, "access denied.*expired"),
        (401, "Unauthorized", first_of_list, Unavailable, "access denied"),
        (501, "NotImplemented", CREATE, UnsafeStore, "create-if-absent"),
        (501, "NotImplemented", GET, Unavailable, "status=501"),
        (500, "InternalError", CREATE, Unavailable, "status=500"),
        (503, "SlowDown", GET, Unavailable, "status=503"),
        (429, "TooManyRequests", DELETE, Unavailable, "status=429"),
    ],
)
async def test_each_refusal_has_one_meaning(
    service: Service,
    store: S3Store,
    *,
    status: int,
    code: str,
    call: Callable[[S3Store], Awaitable[object]],
    error: type[LogStoreError] | None,
    text: str,
) -> None:
    """A refusal becomes the error that tells the caller what to do, after one request and no more."""
    service.answers = [refusal(status, code)]
    if error is None:
        await call(store)
    else:
        with pytest.raises(error, match=text) as caught:
            await call(store)
        assert type(caught.value) is error
        assert "hush" not in str(caught.value)
    assert len(service.requests) == 1


async def test_a_404_tells_the_time(service: Service, store: S3Store) -> None:
    """NotFound carries the service's time: what is absent is absent as of then."""
    service.answers = [refusal(404, "NoSuchKey")]
    with pytest.raises(NotFound) as caught:
        await GET(store)
    assert caught.value.now_ms == DATE_MS


@pytest.mark.parametrize("call", [CREATE, GET, DELETE, first_of_list])
async def test_a_lost_answer_is_unavailable(
    service: Service, store: S3Store, call: Callable[[S3Store], Awaitable[object]]
) -> None:
    """When the connection breaks before the answer, nobody below the caller asks again."""
    service.answers = [LOST]
    with pytest.raises(Unavailable, match="no whole answer"):
        await call(store)
    assert len(service.requests) == 1


async def test_no_hidden_second_put_on_a_reused_connection(service: Service, store: S3Store) -> None:
    """A connection that breaks after the first use does not make the HTTP client send the creation again."""
    service.answers = [answer(200), LOST, answer(200)]
    await store.create("a/1", b"one")
    with pytest.raises(Unavailable):
        await store.create("a/2", b"two")
    assert [request.target for request in service.requests] == ["/bucket/some/where/a/1", "/bucket/some/where/a/2"]
    assert service.connections == 1


@pytest.mark.parametrize("with_range", [False, True])
async def test_a_cut_body_is_no_answer(service: Service, store: S3Store, with_range: bool) -> None:
    """A body shorter than announced is Unavailable, whatever the status said."""
    headers = {"Content_Range": "bytes 0-99998/99999"} if with_range else {}
    service.answers = [answer(206 if with_range else 200, b"only this", length=99_999, **headers)]
    with pytest.raises(Unavailable, match="key=a/b"):
        await store.get("a/b", 0, 99_999 if with_range else None)
    assert len(service.requests) == 1


async def test_another_range_than_asked_for_is_no_answer(service: Service, store: S3Store) -> None:
    """A partial answer must hold what was asked for, up to the end of the object."""
    service.answers = [answer(206, b"abc", Content_Range="bytes 0-2/10")]
    with pytest.raises(Unavailable, match="another range"):
        await store.get("a/b", 0, 5)


async def test_a_range_is_asked_for_and_cut(service: Service, store: S3Store) -> None:
    """Ranges travel as HTTP's inclusive ones; the size comes from Content-Range, the times from their headers."""
    service.answers = [answer(206, b"cde", Content_Range="bytes 2-4/10", Last_Modified="Wed, 12 Feb 2025 10:00:00 GMT")]
    blob = await store.get("a/b", 2, 5)
    assert service.requests[0].headers["range"] == "bytes=2-4"
    assert (blob.data, blob.size, blob.modified_ms, blob.now_ms) == (b"cde", 10, DATE_MS - 7_000, DATE_MS)


async def test_a_service_without_ranges_is_cut_here(service: Service, store: S3Store) -> None:
    """Where Range is ignored and all of the object comes, the caller still gets the range."""
    service.answers = [answer(200, b"abcdefghij")]
    blob = await store.get("a/b", 2, 5)
    assert (blob.data, blob.size) == (b"cde", 10)


async def test_beyond_the_end_is_empty(service: Service, store: S3Store) -> None:
    """416 is an empty range of an object whose size a HEAD tells."""
    service.answers = [refusal(416, "InvalidRange"), answer(200, length=10)]
    blob = await store.get("a/b", 50)
    assert (blob.data, blob.size, blob.now_ms) == (b"", 10, DATE_MS)
    assert [request.verb for request in service.requests] == ["GET", "HEAD"]


async def test_an_object_deleted_between_416_and_head_is_not_found(service: Service, store: S3Store) -> None:
    """The second look may find nothing, and says so."""
    service.answers = [refusal(416, "InvalidRange"), answer(404)]
    with pytest.raises(NotFound):
        await store.get("a/b", 50)


async def test_a_listing_follows_its_pages(service: Service, store: S3Store) -> None:
    """The position goes with the first page, the token with the others; the store's prefix is added and taken off."""
    service.answers = [
        page("some/where/a/1", "some/where/a/2", more="token"),
        page("some/where/a/3", "some/where/a/no key", "some/where/a/"),
    ]
    lines = [listed async for listed in store.list("a/", "a/0")]
    assert [(listed.key, listed.size, listed.modified_ms) for listed in lines] == [
        ("a/1", 3, DATE_MS - 7_000),
        ("a/2", 3, DATE_MS - 7_000),
        ("a/3", 3, DATE_MS - 7_000),
    ]
    first, second = (request.target for request in service.requests)
    assert "prefix=some%2Fwhere%2Fa%2F" in first
    assert "start-after=some%2Fwhere%2Fa%2F0" in first
    assert "continuation-token=token" in second


async def test_a_listing_that_stops_without_a_reason_is_no_answer(service: Service, store: S3Store) -> None:
    """A page that says there is more, and not where, must not pass for the last one."""
    service.answers = [page("some/where/a/1", more="nowhere")]
    with pytest.raises(Unavailable, match="not where"):
        _ = [listed async for listed in store.list("a/")]


@pytest.mark.parametrize("answers", [[answer(200, b"<ListBucket")], [answer(200, b"oops")]])
async def test_a_garbled_listing_is_no_answer(service: Service, store: S3Store, answers: list[bytes]) -> None:
    """What cannot be parsed is Unavailable, not an empty store."""
    service.answers = answers
    with pytest.raises(Unavailable):
        _ = [listed async for listed in store.list("a/")]


async def test_silence_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that never answers is Unavailable after the read timeout."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    service.hang = True
    store = S3Store("bucket", endpoint_url=service.url, region="us-east-1", read_timeout_ms=20)
    with pytest.raises(Unavailable, match="reason=ReadTimeoutError"):
        await CREATE(store)
    await store.aclose()


async def test_no_service_is_unavailable(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is Unavailable, and the address stays out of the message."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    store = S3Store("bucket", endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(Unavailable) as caught:
        await GET(store)
    assert "127.0.0.1" not in str(caught.value)
    await store.aclose()


async def test_no_credentials_are_unavailable(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without credentials nothing is sent, and the error names the reason."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store("bucket", endpoint_url=service.url, region="us-east-1")
    with pytest.raises(Unavailable, match=r"NoCredentialsError; set AWS_ACCESS_KEY_ID"):
        await GET(store)
    assert service.requests == []
    await store.aclose()


@pytest.mark.parametrize("there", [True, False], ids=["expired ones", "none"])
async def test_credentials_that_cannot_be_renewed_are_unavailable(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    """What should print new credentials prints old ones, or fails: told as that, not by botocore's RuntimeError."""
    told, config = tmp_path / "told.json", tmp_path / "config"
    of = {"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b"}
    told.write_text(json.dumps(of | {"Expiration": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}))
    config.write_text(f"[default]\ncredential_process = cat {told}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    store = S3Store("bucket", endpoint_url=service.url, region="us-east-1")
    try:
        service.answers.append(answer(200))
        await store.create("a/b", b"1")
        told.write_text(json.dumps(of | {"Expiration": "2026-01-01T00:00:00+00:00"}))
        if not there:
            told.unlink()
        with pytest.raises(Unavailable, match=r"^the credentials have expired.*AWS_PROFILE") as raised:
            await store.create("a/c", b"1")
        assert "\n" not in str(raised.value)
    finally:
        await store.aclose()


async def test_where_nobody_listens_the_endpoint_is_named_as_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is no answer of a service, and no whole or half one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    store = S3Store("bucket", endpoint_url="http://127.0.0.1:1", region="us-east-1")
    with pytest.raises(Unavailable, match="check endpoint_url"):
        await GET(store)
    await store.aclose()


async def test_one_client_serves_all_calls(service: Service, store: S3Store) -> None:
    """Calls that begin together open one client, and connections are used again."""
    service.answers = [answer(200) for _ in range(8)]
    await asyncio.gather(*(store.create(f"a/{n}", b"") for n in range(4)))
    before = service.connections
    for n in range(4):
        await store.create(f"b/{n}", b"")
    assert service.connections == before <= 4


async def test_a_closed_store_says_so(store: S3Store) -> None:
    """After ``aclose`` nothing is opened again, and repr never shows a secret."""
    assert repr(store) == "<S3Store bucket=bucket prefix=some/where/ not used yet>"
    await store.aclose()
    with pytest.raises(Unavailable, match="closed"):
        await GET(store)
    assert repr(store) == "<S3Store bucket=bucket prefix=some/where/ closed>"


@pytest.mark.parametrize("prefix", ["../x", "a//b", "a b", "/.."])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    """The prefix keeps the rules of keys: what it joins to stays inside."""
    with pytest.raises(InvalidArgument):
        S3Store("bucket", prefix=prefix)
