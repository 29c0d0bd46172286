"""The chart's accounts can do their work and nothing else: the demo's rollout, and an agent that tries everything."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from careen.api.meta import AGENT_USER, OPERATOR_USER
from careen.kube.session import Session
from careen.sandbox.accounts import mint_agent_token
from careen.sandbox.audit import AuditReader, Request
from careen.sandbox.client import Api, ApiError, wait_until
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.demo import play
from careen.sandbox.nodes import NODES, create_nodes, node_manifest
from careen.sandbox.processes import Child
from careen.sandbox.up import Sandbox, SandboxOptions
from careen.sandbox.witness import call_witness
from helm import NAMESPACE

BASE = "/apis/careen.dev/v1alpha1"
USERS = {"careen-operator": OPERATOR_USER, "careen-agent": AGENT_USER}
NEVER_USED = {
    ("careen-agent", "get", "careen.dev/nodes"): "only after the API server refused a status for an order that changed",
    ("careen-agent", "get", "careen.dev/units"): "only where a unit is placed on the machine",
    ("careen-operator", "patch", "careen.dev/units/status"): "only where there are units",
}
"""Rights that the job below needs not, and why they are given."""


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_the_main_job_needs_all_of_the_charts_rights_and_no_others(
    installed, plane: ControlPlane, admin: Api, run_operators: Callable[[Path], list[Child]]
) -> None:
    reader = AuditReader(plane.audit_log)
    sandbox = Sandbox(SandboxOptions(operator=False, installed=True), cluster=plane)
    await asyncio.to_thread(sandbox.start)
    try:
        await asyncio.to_thread(run_operators, sandbox.repository.trust_root)
        await asyncio.to_thread(sandbox.wait_for_reports)
        async with (
            Session.connect(plane.kubeconfig, user_agent="test") as session,
            call_witness(session, NAMESPACE) as witness,
        ):
            result = await play(sandbox, witness, session, print)
        assert result.ok, result
        check_columns(plane)
        admin.delete(f"{NODES}/machine-6")
        await asyncio.to_thread(
            wait_until, lambda: admin.find(f"{BASE}/nodes/machine-6") is None, "a machine that is gone is forgotten", 30
        )
    finally:
        await asyncio.to_thread(sandbox.stop)
    requests = [request for request in reader.read() if request.user in USERS.values()]
    assert [request for request in requests if request.code == 403] == []
    granted, used = set(read_grants(admin)), {use for request in requests for use in read_use(request)}
    assert granted - used <= set(NEVER_USED)


def check_columns(plane: ControlPlane) -> None:
    """Each column of `kubectl get` tells something, for each object."""
    for kind in ("cnode", "updatepolicies", "rebootlocks"):
        header, *rows = plane.kubectl("get", kind).splitlines()
        found = list(re.finditer(r"\S+", header))
        names, starts = [each.group() for each in found], [each.start() for each in found]
        assert rows, kind
        for row in rows:
            cells = [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
            empty = {name for name, cell in zip(names, cells, strict=True) if not cell or cell == "<none>"}
            assert empty <= {"HOLDER"}, f"{kind}: {empty} of {row}"


def read_grants(admin: Api) -> Iterator[tuple[str, str, str]]:
    """Account, verb and resource of each right that a role of the chart gives."""
    base = "/apis/rbac.authorization.k8s.io/v1"
    paths = [f"{base}/clusterroles", f"{base}/namespaces/{NAMESPACE}/roles"]
    for account in USERS:
        for path in paths:
            for rule in (admin.find(f"{path}/{account}") or {}).get("rules", ()):
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        yield from ((account, verb, f"{group}/{resource}") for verb in rule["verbs"])


def read_use(request: Request) -> Iterator[tuple[str, str, str]]:
    account = next(name for name, user in USERS.items() if user == request.user)
    if request.code < 400 and request.resource:
        resource = "/".join(filter(None, (request.resource, request.subresource)))
        yield account, request.verb, f"{request.group}/{resource}"


METHODS = {
    "get": ("GET", True),
    "list": ("GET", False),
    "create": ("POST", False),
    "update": ("PUT", True),
    "patch": ("PATCH", True),
    "delete": ("DELETE", True),
    "deletecollection": ("DELETE", False),
}
"""HTTP method of each verb, and whether it names an object. A watch is asked for by the same rights as tried below."""
OWN, OTHER = "n1", "n2"
ALLOWED = {
    "get careen.dev/nodes n1", "get careen.dev/nodes n2", "list careen.dev/nodes", "watch careen.dev/nodes",
    "patch careen.dev/nodes/status n1",
    "get careen.dev/units n1", "get careen.dev/units n2",
    "create coordination.k8s.io/leases agent-n1", "patch coordination.k8s.io/leases agent-n1",
    "create authentication.k8s.io/selfsubjectreviews", "create authorization.k8s.io/selfsubjectaccessreviews",
    "create authorization.k8s.io/selfsubjectrulesreviews",
    # What Kubernetes shows to all service accounts: the certificates of public authorities.
    "get certificates.k8s.io/clustertrustbundles n1", "get certificates.k8s.io/clustertrustbundles n2",
    "list certificates.k8s.io/clustertrustbundles", "watch certificates.k8s.io/clustertrustbundles",
}  # fmt: skip
"""All that an agent may do: read the machines, and units by their names, report on its own, say that it lives, and ask
who it is."""


@dataclass
class Kind:
    """One resource of the API server, as it tells itself."""

    base: str
    group: str
    name: str
    namespaced: bool
    verbs: list[str]
    kind: str
    version: str
    subresource: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, _, self.subresource = self.name.partition("/")

    @property
    def title(self) -> str:
        return "/".join(filter(None, (self.group, self.name, self.subresource)))

    def path(self, name: str, namespace: str) -> str:
        parts = [self.base, *(["namespaces", namespace] if self.namespaced else []), self.name, name, self.subresource]
        return "/".join(filter(None, parts))

    @property
    def is_lease(self) -> bool:
        return self.title == "coordination.k8s.io/leases"


def list_kinds(admin: Api) -> Iterator[Kind]:
    groups = [("/api/v1", "", "v1")]
    for group in admin.get("/apis")["groups"]:
        version = group["preferredVersion"]
        groups.append((f"/apis/{version['groupVersion']}", group["name"], version["version"]))
    for base, group, version in groups:
        for each in admin.get(base)["resources"]:
            own = each.get("group", group), each.get("version", version)
            api_version = "/".join(filter(None, own))
            yield Kind(base, group, each["name"], each["namespaced"], each["verbs"], each["kind"], api_version)


@pytest.mark.slow
def test_an_agent_that_tries_everything_gets_its_own_and_nothing_else(
    installed, plane: ControlPlane, admin: Api
) -> None:
    create_nodes(admin, [node_manifest(OWN, "zone-a"), node_manifest(OTHER, "zone-b")])
    operator = Api(plane.kubeconfig_with_token(mint(admin, "careen-operator")))
    for name in (OWN, OTHER):
        shadow = {"apiVersion": "careen.dev/v1alpha1", "kind": "Node", "metadata": {"name": name}}
        operator.create(f"{BASE}/nodes", shadow)
        token = Api(plane.kubeconfig_with_token(mint_agent_token(admin, name)))
        if name == OTHER:
            token.create(leases(), lease(f"agent-{name}"))
    # There to be patched: what is not there is not found, whoever asks.
    admin.create(leases(), lease("careen-operator"))
    agent = Api(plane.kubeconfig_with_token(mint_agent_token(admin, OWN)))
    tried, passed = 0, set()
    for kind in list_kinds(admin):
        for verb, name, namespace in list_attempts(kind):
            tried += 1
            if attempt(agent, kind, verb, name, namespace):
                elsewhere = "in default" if namespace == "default" else ""
                passed.add(" ".join(filter(None, (verb, kind.title, name, elsewhere))))
    assert tried > 500, "the API server told little"
    assert passed == ALLOWED


def list_attempts(kind: Kind) -> Iterator[tuple[str, str, str]]:
    """Verb, name and namespace of each attempt on a kind. Creation of the own Lease goes first: it is to be patched."""
    names = ("agent-n1", "agent-n2", "careen-operator") if kind.is_lease else (OWN, OTHER)
    spaces = (NAMESPACE, "default") if kind.namespaced else ("",)
    for verb in sorted(kind.verbs, key=list(METHODS | {"watch": ("GET", False)}).index):
        named = METHODS[verb][1] if verb in METHODS else False
        for namespace in spaces:
            if named or (verb == "create" and (kind.is_lease or kind.subresource)):
                yield from ((verb, name, namespace) for name in names)
            else:
                yield verb, "", namespace


def attempt(agent: Api, kind: Kind, verb: str, name: str, namespace: str) -> bool:
    """Whether the API server lets it pass; refusals for another reason than rights count as passed."""
    method, named = METHODS.get(verb, ("GET", False))
    path = kind.path(name if named or kind.subresource else "", namespace)
    query = {"watch": "true", "timeoutSeconds": "1"} if verb == "watch" else {}
    try:
        agent.request(
            method, path, make_body(kind, verb, name, namespace), query=query, content_type=content_type(verb)
        )
    except ApiError as error:
        return error.status != 403
    return True


def content_type(verb: str) -> str:
    return "application/merge-patch+json" if verb == "patch" else "application/json"


def make_body(kind: Kind, verb: str, name: str, namespace: str) -> Any:
    if verb == "patch":
        return {"status": {"booted": "A"}} if kind.title == "careen.dev/nodes/status" else {"metadata": {}}
    if verb not in ("create", "update"):
        return None
    if kind.is_lease:
        return lease(name, namespace)
    metadata = {"name": name or "mine", **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": kind.version, "kind": kind.kind, "metadata": metadata, "spec": {}}


def leases() -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"


def lease(name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 180},
    }  # fmt: skip


def mint(admin: Api, account: str) -> str:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    return str(admin.create(path, request)["status"]["token"])
