"""Programs run in a pod's container through the API server: what they write, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from careen.kube.errors import ApiError, Unreachable
from careen.kube.resources import PODS
from careen.kube.session import Session

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""Newest first; v4 is all that API servers before 1.30 speak."""
STDOUT, STDERR, ERROR = 1, 2, 3
Write = Callable[[bytes], Any]


async def run_in_pod(
    session: Session,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    stdout: Write,
    stderr: Write,
    silence: float | None = None,
    keep_input_open: bool = False,
) -> int:
    """Run a program and hand on what it writes, as it comes; its exit code.

    `silence`: seconds without a byte after which it counts as hung (None: never, for what people end by Ctrl-C).
    `keep_input_open`: give it a standard input that ends when we do. ApiError for a refusal, and for a program that
    could not be started; Unreachable for a connection that is lost, and for silence.
    """
    path = PODS.path(namespace, pod, "exec")
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    if keep_input_open:
        query.append(("stdin", "true"))
    query += [("command", word) for word in command]
    async with session.open_socket(path, query, protocols=PROTOCOLS) as socket:
        while True:
            try:
                message = await socket.receive(timeout=silence)
            except TimeoutError as error:
                raise Unreachable(f"nothing came for {silence:g} s", method="EXEC", path=path) from error
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise Unreachable("the connection was lost before the program's end", method="EXEC", path=path)
            channel, data = message.data[0], message.data[1:]
            if channel == ERROR:
                return read_exit(data, path)
            if channel in (STDOUT, STDERR) and data:
                (stdout if channel == STDOUT else stderr)(data)


def read_exit(data: bytes, path: str = "") -> int:
    """The exit code in the last message of an exec. ApiError for a program that did not come to have one."""
    status = json.loads(data)
    if status.get("status") == "Success":
        return 0
    causes = (status.get("details") or {}).get("causes") or ()
    for cause in causes:
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"])
    message = str(status.get("message") or "the program could not be run")
    raise ApiError(int(status.get("code") or 500), str(status.get("reason") or ""), message, method="EXEC", path=path)
