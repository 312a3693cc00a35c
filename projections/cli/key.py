"""``logstore key``: keys to encrypt a store with, and to sign what is written."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from logstore.encryption import KEY_BYTES, require_cryptography
from logstore.errors import InvalidArgument
from logstore.signature import SigningKey

__all__ = ["command"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--signing", is_flag=True, help="A key to sign with; prints its public half, for the file of trust.")
def command(file: Path, signing: bool) -> None:
    """Write a new random key into FILE, which must not exist, for nobody else to read.

    Name it by LOGSTORE_KEYS, or by LOGSTORE_SIGNING_KEY. Whoever loses the keys of an encrypted store loses the store.
    """
    require_cryptography()
    secret = secrets.token_bytes(KEY_BYTES)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidArgument(f"there is a file of this name, and keys are never overwritten path={file}") from None
    except OSError as error:
        raise InvalidArgument(f"file cannot be made path={file} cause={error.strerror}") from error
    with open(descriptor, "w", encoding="ascii") as stream:
        stream.write(secret.hex() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # a store must not outlive the only key that reads it
    finally:
        os.close(directory)
    if signing:
        click.echo(SigningKey(secret).public.hex())
