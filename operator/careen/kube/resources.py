"""The kinds that Careen reads or writes, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API server addresses it: group ("" for core), version, plural, scope and kind."""

    group: str
    version: str
    plural: str
    namespaced: bool
    kind: str

    @property
    def api_version(self) -> str:
        """The apiVersion of its objects, as `careen.dev/v1alpha1` or `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of one object, or of a subresource of it.

        Without namespace, a namespaced kind's collection over all namespaces. ValueError for a namespace with a
        cluster-scoped kind, an object of a namespaced kind without one, or a subresource without a name.
        """
        if namespace is not None and not self.namespaced:
            raise ValueError(f"{self.plural} are cluster-scoped: namespace must be None, not {namespace!r}")
        if name is not None and self.namespaced and namespace is None:
            raise ValueError(f"{self.plural} are namespaced: {name!r} needs a namespace")
        if subresource is not None and name is None:
            raise ValueError(f"{self.plural}/{subresource} needs a name")
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            if name in ("", ".", ".."):
                raise ValueError(f"{name!r} is not a name of {self.plural}")
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


NODES = Resource("careen.dev", "v1alpha1", "nodes", False, "Node")
POLICIES = Resource("careen.dev", "v1alpha1", "updatepolicies", False, "UpdatePolicy")
LOCKS = Resource("careen.dev", "v1alpha1", "rebootlocks", False, "RebootLock")
UNITS = Resource("careen.dev", "v1alpha1", "units", False, "Unit")
CORE_NODES = Resource("", "v1", "nodes", False, "Node")
PODS = Resource("", "v1", "pods", True, "Pod")
CONFIGMAPS = Resource("", "v1", "configmaps", True, "ConfigMap")
LEASES = Resource("coordination.k8s.io", "v1", "leases", True, "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", True, "Event")
PDBS = Resource("policy", "v1", "poddisruptionbudgets", True, "PodDisruptionBudget")


def describe_request(method: str, path: str, *, watch: bool = False) -> tuple[str, str]:
    """The audit log's words for a request: (verb, resource), as ("patch", "nodes.careen.dev/status").

    For metrics: object names never appear. A path that is no resource (as /readyz) is given as it is.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return method.lower(), path
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = f"{rest[0]}.{group}" if group else rest[0]
    if len(rest) > 2:
        resource += "/" + rest[2]
    return _verb(method, named=len(rest) > 1, watch=watch), resource


def _verb(method: str, *, named: bool, watch: bool) -> str:
    if method == "GET":
        return "watch" if watch else "get" if named else "list"
    if method == "DELETE":
        return "delete" if named else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())
