"""What people write by hand must never end the operator: it is read, or it is as if it were not there."""

from __future__ import annotations

import pytest

from careen.api.meta import RESUME_ANNOTATION
from careen.core.decode import decode_policy


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2-abc/3", ("2-abc", 3)),
        ("3", None),
        ("/3", None),
        ("2-abc/", None),
        ("2-abc/-1", None),
        ("2-abc/\u00b2", None),
        ("2-abc/" + "9" * 5000, None),
    ],
)
def test_any_resume_annotation_can_be_read(written: str, read: tuple[str, int] | None) -> None:
    meta = {"name": "os", "uid": "u", "resourceVersion": "1", "annotations": {RESUME_ANNOTATION: written}}
    policy = decode_policy({"metadata": meta, "spec": {"release": {"repository": "http://r", "version": "2.0.0"}}})
    assert policy.resume == read
