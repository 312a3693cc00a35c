"""``logstore policy``: the IAM policy that confines a process to what it has to do in a bucket."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from logstore.errors import InvalidArgument
from logstore.filestore import open_filestore
from logstore.filestore.s3 import S3Store
from logstore.keys import escape_name
from projections.cli.terminal import url_argument

__all__ = ["command"]

SHARED: Final = ("roster/*", "snapshots/*/*/*/registration/*", "claims/*", "stagelogs/*", "pins/*")
SNAPSHOTS: Final = ("snapshots/*/*/*/manifest/*", "chunks/*")
STILL: Final = {
    "reader": "a stolen key can read all of the log",
    "writer": "a stolen key can read all of the log, append under this writer's name, claim documents, add to stage"
    " logs, hold history by pins, and post entries to the roster, which can close chapters early and open"
    " sessions that others must seal, and say of projections that they are not used any more, so that"
    " history goes. It can write under no other writer's name, and neither overwrite nor delete anything."
    " The process cannot end the silent sessions of others: open its log with LogSettings(seal=False), and"
    " let `keep` do that",
    "snapshots": "It can also publish snapshots, which readers believe",
    "keeper": "a stolen key can read, add and delete anything; it cannot overwrite",
}
CANNOT_OVERWRITE: Final = {
    "writer": "and neither overwrite nor delete anything",
    "keeper": "; it cannot overwrite",
}
MAY_OVERWRITE: Final = {
    "writer": "and delete nothing. It can overwrite whatever it may create, which readers find out by the digests",
    "keeper": ", and overwrite it",
}


@click.command()
@url_argument
@click.option("--writer", metavar="NAME", help="For a process that writes under this name, and under no other.")
@click.option("--snapshots", is_flag=True, help="It may also write snapshots.")
@click.option("--keeper", is_flag=True, help="For `logstore keep`, which retires and deletes.")
@click.option(
    "--without-if-none-match",
    "unconditional",
    is_flag=True,
    help="For a service whose policies know no s3:if-none-match, such as Ceph 16: there it refuses every creation.",
)
def command(url: str, writer: str | None, snapshots: bool, keeper: bool, unconditional: bool) -> None:
    """Print the IAM policy for a process that uses the log at URL, an s3:// address: a reader, unless told otherwise.

    What the policy cannot prevent stands on stderr. No request is made.
    """
    store = open_filestore(url)
    if not isinstance(store, S3Store):
        raise InvalidArgument("policies are for buckets url=s3://bucket/prefix; a directory has its file permissions")
    if keeper and (writer is not None or snapshots):
        raise InvalidArgument("a keeper may do all that a writer may; leave out --writer and --snapshots")
    if snapshots and writer is None:
        raise InvalidArgument("who writes snapshots is a writer; give --writer, too")
    if keeper:
        role, written = "keeper", ["*"]
    elif writer is not None:
        role = "writer"
        written = [f"log/{escape_name(writer, 'writer')}/*", *SHARED, *(SNAPSHOTS if snapshots else ())]
    else:
        role, written = "reader", []
    click.echo(json.dumps(_policy(store, written, deletes=keeper, conditional=not unconditional), indent=2))
    still = STILL[role]
    if unconditional and written:
        still = still.replace(CANNOT_OVERWRITE[role], MAY_OVERWRITE[role])
    click.echo(". ".join([still, *([STILL["snapshots"]] if snapshots else [])]), err=True)


def _policy(store: S3Store, written: list[str], *, deletes: bool, conditional: bool) -> dict[str, Any]:
    def within(pattern: str) -> str:
        return f"arn:aws:s3:::{store.bucket}/{store.prefix}{pattern}"

    statements: list[dict[str, Any]] = [
        {"Sid": "Read", "Effect": "Allow", "Action": "s3:GetObject", "Resource": within("*")},
        {
            "Sid": "List",  # without it an object that is not there is answered by 403, not by 404
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{store.bucket}",
        },
    ]
    if written:
        statements.append(
            {"Sid": "Create", "Effect": "Allow", "Action": "s3:PutObject", "Resource": [*map(within, written)]}
        )
    if written and conditional:
        statements.append(
            {
                "Sid": "NeverOverwrite",
                "Effect": "Deny",
                "Action": "s3:PutObject",
                "Resource": within("*"),
                "Condition": {"Null": {"s3:if-none-match": "true"}},
            }
        )
    if deletes:
        statements.append({"Sid": "Delete", "Effect": "Allow", "Action": "s3:DeleteObject", "Resource": within("*")})
    return {"Version": "2012-10-17", "Statement": statements}
