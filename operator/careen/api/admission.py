"""Admission policies: one writer for each field, held by the API server itself.

Kubernetes gives rights on objects, not on fields, and to accounts, not to machines. These policies say the rest: which
fields are the operator's and which the agents', and that an agent's credentials are good for its own machine alone: a
pod's token by the node that it is bound to, the certificate of a machine outside Kubernetes by its name. They are made
from the models and from the names in meta, so that neither a new field nor a renamed account escapes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .meta import (
    AGENT_ACCOUNT,
    AGENT_GROUP,
    AGENT_LEASE_PREFIX,
    AGENT_USER_PREFIX,
    GROUP,
    NAMESPACE,
    OPERATOR_ACCOUNT,
    VERSION,
    name_user,
)
from .node import NodeStatus

Document = dict[str, Any]

OPERATOR_SPEC = ("assignment", "coreNode", "units")
"""Fields of Node.spec that the operator writes; all others are people's."""
OPERATOR_STATUS = ("observedGeneration", "request", "orchestration", "conditions")
"""Fields of Node.status that the operator writes; all others are the agent's."""
RESET_VERB = "reset"
"""The verb on Nodes that asking for a reset takes, beside those on the object."""
NODE_CLAIM = "authentication.kubernetes.io/node-name"
"""Where the API server shows the node that a pod-bound token was made for."""
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"

_IS_CERTIFIED = f"request.userInfo.username.startsWith('{AGENT_USER_PREFIX}')"
ON_STATUS = "request.?subResource.orValue('') == 'status'"


@dataclass(frozen=True, slots=True)
class Install:
    """The namespace of the install, and the accounts in it as rules name them."""

    namespace: str

    @property
    def operator(self) -> str:
        """The operator's user."""
        return name_user(OPERATOR_ACCOUNT, self.namespace)

    @property
    def is_operator(self) -> str:
        """Whether the operator asks."""
        return f"request.userInfo.username == '{self.operator}'"

    @property
    def is_agent(self) -> str:
        """Whether an agent asks, of whatever machine: a pod's, or one with a certificate.

        The group too: whoever was given it under another name has an agent's roles, and must not escape its rules.
        """
        return f"{self._is_pod} || {_IS_CERTIFIED} || '{AGENT_GROUP}' in request.userInfo.?groups.orValue([])"

    @property
    def agent_node(self) -> str:
        """The machine that an agent's credentials are good for; empty if for none."""
        by_name = f"{_IS_CERTIFIED} ? request.userInfo.username.substring({len(AGENT_USER_PREFIX)}) : ''"
        return f"{self._is_pod} ? request.userInfo.?extra[?'{NODE_CLAIM}'][?0].orValue('') : {by_name}"

    @property
    def _is_pod(self) -> str:
        return f"request.userInfo.username == '{name_user(AGENT_ACCOUNT, self.namespace)}'"


def agent_status() -> tuple[str, ...]:
    """Fields of Node.status that the machine's agent writes."""
    names = (field.alias or name for name, field in NodeStatus.model_fields.items())
    return tuple(name for name in names if name not in OPERATOR_STATUS)


def build_policies(namespace: str = NAMESPACE) -> list[Document]:
    """All policies for an install in this namespace, each followed by the binding that puts it in force."""
    install = Install(namespace)
    made = (
        _policy(
            "careen-agents", [_rule("*", "*", ["*/*"], ["*"])], [("agent", install.is_agent)],
            *_agent_checks(install),
        ),
        _policy(
            "careen-agent-leases",
            [_rule("coordination.k8s.io", "*", ["leases"])],
            [
                ("namespace", f"object.metadata.namespace == '{install.namespace}'"),
                ("name", f"object.metadata.name.startsWith('{AGENT_LEASE_PREFIX}')"),
                ("not-an-agent", f"!({install.is_agent})"),
            ],
            {}, _lease_checks(install),
        ),
        _policy(
            "careen-nodes", [_rule(GROUP, VERSION, ["nodes", "nodes/status"])], [], {}, _node_checks(install)
        ),
        _policy(
            "careen-policy-status", [_rule(GROUP, VERSION, ["updatepolicies/status"], ["UPDATE"])], [], {},
            [
                _check(
                    install.is_operator,
                    f"status of an UpdatePolicy is written by the operator alone ({install.operator})",
                )
            ],
        ),
        _policy(
            "careen-unit-status", [_rule(GROUP, VERSION, ["units/status"], ["UPDATE"])], [], {},
            [
                _check(
                    install.is_operator,
                    f"status of a Unit is written by the operator alone ({install.operator}): it says where it runs",
                )
            ],
        ),
        # A lock that nobody has led yet has no term, which is the same as term 0: who takes a place in it writes that.
        _policy(
            "careen-lock-terms", [_rule(GROUP, VERSION, ["rebootlocks/status"], ["UPDATE"])], [], {},
            [
                _check(
                    f"{install.is_operator} || object.?status.?term.orValue(0) == oldObject.?status.?term.orValue(0)",
                    "status.term of a RebootLock is written by the operator alone: it keeps a leader that was deposed "
                    "from granting; people write status.holders",
                )
            ],
        ),
    )  # fmt: skip
    return [document for policy in made for document in (policy, _bind(policy["metadata"]["name"]))]


def _agent_checks(install: Install) -> tuple[dict[str, str], list[Document]]:
    """What an agent may write at all: its own status without the operator's part, and its own Lease."""
    variables = {
        "node": install.agent_node,
        # Questions about one's own rights are written to the API server but change nothing.
        "review": "request.resource.group in ['authentication.k8s.io', 'authorization.k8s.io']"
        " && request.operation == 'CREATE'",
        "ownStatus": f"request.operation == 'UPDATE' && request.resource.group == '{GROUP}'"
        f" && request.resource.resource == 'nodes' && {ON_STATUS} && request.?name.orValue('') == variables.node",
        "ownLease": "request.operation in ['CREATE', 'UPDATE'] && request.resource.group == 'coordination.k8s.io'"
        " && request.resource.resource == 'leases' && request.?subResource.orValue('') == ''"
        f" && request.?namespace.orValue('') == '{install.namespace}'"
        f" && object.metadata.name == '{AGENT_LEASE_PREFIX}' + variables.node",
    }
    allowed = (
        f"an agent writes only the status of its own Node and the Lease {install.namespace}/{AGENT_LEASE_PREFIX}NODE"
    )
    checks = [
        _check(
            "variables.review || variables.node != ''",
            f"an agent's token must be bound to a pod on a node (it carries no {NODE_CLAIM}); its certificate must be "
            f"made out to {AGENT_USER_PREFIX}NODE",
        ),
        _check(
            "variables.review || variables.ownStatus || variables.ownLease",
            allowed,
            f"'{allowed}; this one runs on ' + variables.node",
        ),
        _check(
            f"!variables.ownStatus || ({_unchanged('status', OPERATOR_STATUS)})",
            f"{_name_fields('status', OPERATOR_STATUS)} are written by the operator alone",
        ),
    ]
    return variables, checks


def _lease_checks(install: Install) -> list[Document]:
    return [
        _check(
            f"request.userInfo.username == '{GARBAGE_COLLECTOR}' && request.operation == 'UPDATE'"
            " && object.spec == oldObject.spec",
            f"a Lease {install.namespace}/{AGENT_LEASE_PREFIX}NODE is written by the agent of that machine alone: it "
            "says that the machine is alive; others may delete it",
        )
    ]


def _node_checks(install: Install) -> list[Document]:
    agents = agent_status()
    return [
        _check(
            f"request.operation != 'CREATE' || {install.is_operator}",
            f"a Node of {GROUP} is created by the operator alone ({install.operator}), one for each machine",
        ),
        _check(
            f"{install.is_operator} || request.operation == 'CREATE' || ({_unchanged('spec', OPERATOR_SPEC)})",
            f"{_name_fields('spec', OPERATOR_SPEC)} are written by the operator alone ({install.operator}); "
            "people set spec.paused, spec.boot, spec.retry, spec.abort, spec.request, spec.metadata and "
            "spec.unitCapacity",
        ),
        _check(
            f"!({install.is_operator}) || (request.operation == 'CREATE' ? !object.?spec.?request.hasValue()"
            f" : {_unchanged('spec', ('request',))})",
            "spec.request is people's: the operator never asks for a reboot or a reset by itself",
        ),
        # Who may pause and reboot machines may not therefore empty them.
        _check(
            "request.operation == 'CREATE' || object.?spec.?request.?action.orValue('') != 'Reset'"
            " || object.?spec.?request == oldObject.?spec.?request"
            f" || authorizer.group('{GROUP}').resource('nodes').name(request.name).check('{RESET_VERB}').allowed()",
            f"spec.request of a reset empties the machine: it needs the verb {RESET_VERB} on nodes.{GROUP}, which the "
            "role careen-reset-admin has",
        ),
        _check(
            f"!({ON_STATUS}) || {install.is_operator} || ({install.is_agent})",
            "status of a Node is written by the operator and by the agent of that machine alone",
        ),
        _check(
            f"!({ON_STATUS}) || !({install.is_operator}) || ({_unchanged('status', agents)})",
            f"the operator writes {_name_fields('status', OPERATOR_STATUS)} alone; the rest of status is the agent's",
        ),
    ]


def _unchanged(part: str, fields: Sequence[str]) -> str:
    return " && ".join(f"object.?{part}.?{name} == oldObject.?{part}.?{name}" for name in fields)


def _name_fields(part: str, fields: Sequence[str]) -> str:
    *first, last = (f"{part}.{name}" for name in fields)
    return f"{', '.join(first)} and {last}"


def _rule(group: str, version: str, resources: list[str], operations: Sequence[str] = ("CREATE", "UPDATE")) -> Document:
    return {"apiGroups": [group], "apiVersions": [version], "operations": list(operations), "resources": resources}


def _check(expression: str, message: str, message_expression: str | None = None) -> Document:
    made = {"expression": expression, "message": message, "reason": "Forbidden"}
    return made if message_expression is None else {**made, "messageExpression": message_expression}


def _policy(
    name: str,
    matched: list[Document],
    conditions: Iterable[tuple[str, str]],
    variables: dict[str, str],
    checks: list[Document],
) -> Document:
    spec: Document = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": matched}}
    if conditions := list(conditions):
        spec["matchConditions"] = [{"name": key, "expression": expression} for key, expression in conditions]
    if variables:
        spec["variables"] = [{"name": key, "expression": expression} for key, expression in variables.items()]
    spec["validations"] = checks
    return _document("ValidatingAdmissionPolicy", name, spec)


def _bind(name: str) -> Document:
    return _document("ValidatingAdmissionPolicyBinding", name, {"policyName": name, "validationActions": ["Deny"]})


def _document(kind: str, name: str, spec: Document) -> Document:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
