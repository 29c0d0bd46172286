"""Parameters of a request: where they are read, as etcd's HTTP layer reads them."""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from .faults import Code, Refusal

FORM_OCTETS = 10 * 1024 * 1024
"""Bytes of a body that are read as a form."""
FORM_TYPE = "application/x-www-form-urlencoded"
_BAD_ESCAPE = re.compile("%(?![0-9a-fA-F]{2})")

Form = Mapping[str, str]
"""The first value of each parameter that is there."""


def read_form(method: str, query: str, content_type: str, body: bytes) -> Form | Refusal:
    """The parameters of a request. The body wins over the query.

    A body is read for PUT and POST alone, and only as a form: any other is ignored without a word, as etcd does, so a
    condition in the body of a DELETE is lost.
    """
    texts = [query]
    if method in ("PUT", "POST") and content_type.partition(";")[0].strip().lower() == FORM_TYPE:
        if len(body) > FORM_OCTETS:
            return Refusal(Code.INVALID_FORM, "http: POST too large")
        texts.insert(0, body.decode(errors="surrogateescape"))
    form: dict[str, str] = {}
    for text in texts:
        for part in text.split("&"):
            if not part:
                continue
            if ";" in part:
                return Refusal(Code.INVALID_FORM, "invalid semicolon separator in query")
            name, _, value = part.partition("=")
            wrong = _BAD_ESCAPE.search(name) or _BAD_ESCAPE.search(value)
            if wrong:
                fault = wrong.string[wrong.start() : wrong.start() + 3]
                return Refusal(Code.INVALID_FORM, f'invalid URL escape "{fault}"')
            form.setdefault(_decode(name), _decode(value))
    return form


def _decode(text: str) -> str:
    # Bytes above 127 may come as they are; invalid UTF-8 is shown as U+FFFD, as in etcd's answers.
    return unquote_to_bytes(text.replace("+", " ").encode(errors="surrogateescape")).decode(errors="replace")
