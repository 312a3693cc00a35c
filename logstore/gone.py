"""The record that a stage log may be gone. docs/FORMAT.md, "Stage logs". Pure."""

from __future__ import annotations

from dataclasses import dataclass

from logstore.errors import Corrupt
from logstore.frame import DIGEST_BYTES, ObjectType, decode_fields, encode_fields
from logstore.keys import NUMBER_MAX, StageId, stage_gone_key

__all__ = ["Gone", "decode_gone", "encode_gone"]


@dataclass(frozen=True, slots=True)
class Gone:
    """That the stage log ``stage``, which ended with a page of ``digest`` as the last of ``pages``, may be gone."""

    stage: StageId
    pages: int
    digest: bytes


def encode_gone(gone: Gone) -> bytes:
    """Return the bytes of a record."""
    return encode_fields(
        ObjectType.STAGE_GONE,
        {
            "deployment": gone.stage.deployment,
            "stage": gone.stage.stage,
            "retry": gone.stage.retry,
            "pages": gone.pages,
            "digest": gone.digest,
        },
    )


def decode_gone(stage: StageId, data: bytes) -> Gone:
    """Decode the record of ``stage``; Corrupt, naming it, when it is anything else."""
    name = stage_gone_key(stage)
    fields = decode_fields(name, data, ObjectType.STAGE_GONE)
    if StageId(fields.text("deployment"), fields.text("stage"), fields.number("retry", NUMBER_MAX)) != stage:
        raise Corrupt(f"record lies under another's name key={name}; restore the object")
    return Gone(stage, fields.number("pages", NUMBER_MAX + 1), fields.binary("digest", DIGEST_BYTES))
