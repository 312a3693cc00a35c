"""Documents as lines of JSON, and back; and the digest of documents. Pure. docs/rfcs/0007-export-and-import.md.

    {"key": "d-1", "document": {"status": 0}}    any document, by its key
    {"id": "d-1", "status": 0}                   one that holds its key, in the field "id" or in another one

Values are written as those of events (``jsonlines.py``), so every document survives being written and read again.
"""

from __future__ import annotations

import json
from typing import Any, Final

from logstore.digest import MODULUS, row_digest
from logstore.errors import InvalidArgument
from logstore.event import Data
from projections.cli.jsonlines import from_json, object_of_line, to_json

__all__ = ["document_digest", "document_of_line", "fields_of_document", "shown_digest"]

KEY_FIELD: Final = "id"
_WITH_KEY: Final = {"key", "document"}


def document_of_line(line: bytes, key_field: str | None) -> tuple[str, Data]:
    """Return a document and its key, which comes first; InvalidArgument for a line that says none.

    ``key_field``: where in the document its key is; None: in "id", unless the line gives key and document apart.

    >>> document_of_line(b'{"key": "d-1", "document": {"status": 0}}', None)
    ('d-1', {'status': 0})
    >>> document_of_line(b'{"id": "d-1", "status": 0}', None)
    ('d-1', {'id': 'd-1', 'status': 0})
    """
    fields = object_of_line(line, "a document, or key and document")
    if key_field is None and fields.keys() == _WITH_KEY:
        name, found = "key", fields["document"]
    else:
        name, found = KEY_FIELD if key_field is None else key_field, fields
    if type(key := fields.get(name)) is not str:
        raise InvalidArgument(
            f"a document's key is text field={name} value={key!r:.40}; say with --key which field is the key,"
            ' or write {"key": …, "document": {…}}'
        )
    document = from_json(found, "document")
    if type(document) is not dict:
        raise InvalidArgument(f"a document is an object type={type(document).__name__} key={key!r:.80}")
    return key, document


def fields_of_document(key: str, document: Data, key_field: str | None) -> dict[str, Any]:
    """Return what a line says of a document, as what JSON can say: with its key, or as it is, if it holds that.

    Raises InvalidArgument where ``key_field`` is not its key.
    """
    if key_field is None:
        return {"key": key, "document": to_json(document)}
    if document.get(key_field) != key:
        raise InvalidArgument(
            f"a document's key is not in this field --key={key_field} key={key!r:.80}"
            f" value={document.get(key_field)!r:.40}; leave --key out: its line has the key beside it then"
        )
    fields: dict[str, Any] = to_json(document)
    return fields


def document_digest(key: str, document: Data) -> int:
    """The digest of one document. Those of several are added, modulo ``MODULUS``. Cost: writing it as JSON."""
    text = json.dumps(to_json(document), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return row_digest(key, text.encode())


def shown_digest(total: int) -> str:
    """A sum of digests, as people see it."""
    return f"{total % MODULUS:064x}"
