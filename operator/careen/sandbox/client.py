"""A small synchronous API client for the sandbox and for tests: paths in, dicts out."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config

Manifest = dict[str, Any]
Found = TypeVar("Found")

MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server's refusal: its HTTP status, and its message as text."""

    def __init__(self, status: int, document: Manifest) -> None:
        super().__init__(f"{status}: {document.get('message', document)}")
        self.status = status
        self.document = document


class Api:
    """Requests under one kubeconfig. May be used from several threads."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = config.new_client_from_config(str(kubeconfig), persist_config=False)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
    ) -> Manifest:
        """Send one request and return the decoded answer; raises ApiError for any status from 400 on."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        arguments = self._client.param_serialize(
            method,
            path,
            header_params=headers,
            query_params=list((query or {}).items()),
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*arguments, _request_timeout=timeout_seconds)
            status, content = response.status, response.read()
        except client.ApiException as error:
            status, content = error.status, error.body
        document = _decode(content)
        if status >= 400:
            raise ApiError(status, document)
        return document

    def get(self, path: str, **query: str) -> Manifest:
        """Read one object or a list."""
        return self.request("GET", path, query=query)

    def find(self, path: str) -> Manifest | None:
        """Read one object; None when it does not exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Manifest]:
        """Read a list; empty when the API server does not know the kind."""
        answer = self.find(path) if not query else self.get(path, **query)
        return list(answer["items"]) if answer else []

    def create(self, path: str, body: Manifest) -> Manifest:
        """Create one object under the path of its list."""
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any, content_type: str = MERGE, **query: str) -> Manifest:
        """Patch one object; a merge patch unless `content_type` says otherwise."""
        return self.request("PATCH", path, body, query=query, content_type=content_type)

    def delete(self, path: str, body: Manifest | None = None, **query: str) -> None:
        """Delete one object or a whole list; an object that is not there is no error."""
        try:
            self.request("DELETE", path, body, query=query)
        except ApiError as error:
            if error.status != 404:
                raise

    def close(self) -> None:
        """Close the connections."""
        self._client.rest_client.pool_manager.clear()


def _decode(content: str | bytes | None) -> Manifest:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        # /readyz and a server that is only starting answer in plain text.
        return {"message": content.decode(errors="replace") if isinstance(content, bytes) else content}
    return document if isinstance(document, dict) else {"message": document}


def wait_until(check: Callable[[], Found | None], what: str, timeout_seconds: float, pause: float = 0.05) -> Found:
    """Ask `check` until its answer is true, and return that; TimeoutError naming `what` when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(pause)
    return found
