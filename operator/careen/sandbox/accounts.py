"""Installs the kinds and accounts on a cluster, and hands out tokens as an operator's and an agent's pods have them."""

import functools
from importlib import resources
from typing import Any

import yaml

from careen.api import admission, crd
from careen.api.kinds import KINDS
from careen.api.meta import AGENT_ACCOUNT, GROUP, NAMESPACE, OPERATOR_ACCOUNT, VERSION
from careen.sandbox.client import Api, ApiError, Manifest, wait_until
from careen.sandbox.cluster import Cluster

READY_SECONDS = 30.0
TOKEN_SECONDS = 24 * 3600
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DAEMONSETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
OUR_NODES = f"/apis/{GROUP}/{VERSION}/nodes"
AGENT_LABELS = {"app.kubernetes.io/name": "careen", "app.kubernetes.io/component": "agent"}
"""Labels of the agents' pods, in the chart and here."""
AGENT_SELECTOR = ",".join(f"{key}={value}" for key, value in AGENT_LABELS.items())
PROBE = "careen-admission-probe"


def install(cluster: Cluster) -> None:
    """Apply namespace, accounts, CRDs, admission policies and the default lock, and wait until all are in force.

    Safe to call again: fields that people changed in the default lock stay. Raises SandboxError or ApiError when the
    API server refuses something, TimeoutError when it does not serve or enforce it within 30 seconds.
    """
    kinds = [*crd.build_crds(), *admission.build_policies()]
    _apply(cluster, _package_text("rbac.yaml"), crd.render(kinds))
    api = cluster.api()
    try:
        wait_until(lambda: _are_served(api), "Careen's CRDs served", READY_SECONDS)
        wait_until(lambda: _are_enforced(api), "Careen's admission policies in force", READY_SECONDS)
        lock = yaml.safe_load(_package_text("defaults.yaml"))
        if api.find(f"/apis/{GROUP}/{VERSION}/rebootlocks/{lock['metadata']['name']}") is None:
            api.create(f"/apis/{GROUP}/{VERSION}/rebootlocks", lock)
    finally:
        api.close()


def mint_operator_token(api: Api, seconds: int = TOKEN_SECONDS) -> str:
    """A token of the operator's account."""
    return _mint(api, OPERATOR_ACCOUNT, seconds)


def mint_agent_token(api: Api, node: str, seconds: int = TOKEN_SECONDS) -> str:
    """A token of the agents' account, bound to the agent's pod on this core Node as the kubelet would bind it.

    Makes the agents' DaemonSet when it is missing. Raises ApiError for a Node that does not exist, TimeoutError when
    the DaemonSet makes no pod there within 30 seconds.
    """
    api.get(f"/api/v1/nodes/{node}")
    if api.find(f"{DAEMONSETS}/{AGENT_ACCOUNT}") is None:
        _create_daemonset(api)
    pod = wait_until(lambda: _find_agent_pod(api, node), f"the agent's pod on {node}", READY_SECONDS)
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    return _mint(api, AGENT_ACCOUNT, seconds, reference)


def mint_unbound_agent_token(api: Api, seconds: int = TOKEN_SECONDS) -> str:
    """A token of the agents' account that is bound to nothing: the policies refuse all that it writes."""
    return _mint(api, AGENT_ACCOUNT, seconds)


def agent_daemonset() -> Manifest:
    """The agents' DaemonSet. Nothing runs in its pods in the sandbox; drains leave them alone, as anywhere."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": AGENT_ACCOUNT, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": AGENT_LABELS},
            "template": {
                "metadata": {"labels": AGENT_LABELS},
                "spec": {
                    "serviceAccountName": AGENT_ACCOUNT,
                    "containers": [{"name": "agent", "image": "example.invalid/careen"}],
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    }


def _create_daemonset(api: Api) -> None:
    try:
        api.create(DAEMONSETS, agent_daemonset())
    except ApiError as error:
        if error.status != 409:
            raise


def _find_agent_pod(api: Api, node: str) -> Manifest | None:
    pods = api.items(PODS, labelSelector=AGENT_SELECTOR, fieldSelector=f"spec.nodeName={node}")
    return next((pod for pod in pods if "deletionTimestamp" not in pod["metadata"]), None)


def _mint(api: Api, account: str, seconds: int, bound: dict[str, Any] | None = None) -> str:
    spec: dict[str, Any] = {"expirationSeconds": seconds}
    if bound is not None:
        spec["boundObjectRef"] = bound
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str(api.create(f"{ACCOUNTS}/{account}/token", request)["status"]["token"])


def _apply(cluster: Cluster, *texts: str) -> None:
    for text in texts:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)


@functools.cache
def _package_text(name: str) -> str:
    return (resources.files("careen.sandbox") / name).read_text(encoding="utf-8")


def _are_served(api: Api) -> bool:
    return all(api.find(f"/apis/{GROUP}/{VERSION}/{kind.plural}") is not None for kind in KINDS)


def _are_enforced(api: Api) -> bool:
    """Whether the API server refuses what only the operator may do; it learns of new policies after a moment."""
    probe = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Node", "metadata": {"name": PROBE}, "spec": {}}
    try:
        api.request("POST", OUR_NODES, probe, query={"dryRun": "All"})
    except ApiError as error:
        return error.status == 403
    return False
