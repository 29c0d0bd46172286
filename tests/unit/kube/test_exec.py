"""What the last message of an exec says."""

from __future__ import annotations

import json

import pytest

from careen.kube.errors import ApiError
from careen.kube.exec import read_exit


def test_exit_codes() -> None:
    assert read_exit(b'{"status":"Success"}') == 0
    cause = {"reason": "ExitCode", "message": "3"}
    failed = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
    assert read_exit(json.dumps(failed).encode()) == 3


def test_a_program_that_is_not_there_has_no_exit_code() -> None:
    failed = {"status": "Failure", "code": 500, "reason": "InternalError", "message": "no such file: chroot"}
    with pytest.raises(ApiError, match="no such file: chroot"):
        read_exit(json.dumps(failed).encode())
