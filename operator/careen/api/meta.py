"""Names that all rooms share: group, version, annotation keys, accounts, and the base of all models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .rules import ALLOWED

GROUP = "careen.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PROTOCOL = 1
"""Number of the operator-agent protocol; an agent that speaks a higher one is given no orders (ProtocolSkew)."""

NAMESPACE = "careen-system"
OPERATOR_ACCOUNT = "careen-operator"
AGENT_ACCOUNT = "careen-agent"


def name_user(account: str, namespace: str = NAMESPACE) -> str:
    """The user that a service account is to the API server."""
    return f"system:serviceaccount:{namespace}:{account}"


OPERATOR_USER = name_user(OPERATOR_ACCOUNT)
AGENT_USER = name_user(AGENT_ACCOUNT)
AGENT_USER_PREFIX = "system:careen:agent:"
"""Common name of the client certificate of a machine outside Kubernetes, before the machine's name."""
AGENT_GROUP = "system:careen:agents"
"""Organization in such certificates: the group that roles are bound to."""
LEADER_LEASE = "careen-operator"
AGENT_LEASE_PREFIX = "agent-"
"""The agent of machine X renews the Lease `agent-X` in the install's namespace."""
SWITCH_CONFIGMAP = "careen-switch"
"""ConfigMap in the install's namespace; key `paused` "true" stops new Stage and Activate in the whole cluster."""
SWITCH_KEY = "paused"

LIST_MAP_BY_TYPE = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
"""Conditions: one for each type."""

CORDONED_ANNOTATION = f"{GROUP}/cordoned"
"""On a core Node that the operator made unschedulable: the order it did so for."""
RESUME_ANNOTATION = f"{GROUP}/resume"
"""On an UpdatePolicy, `ROLLOUT/N`: a person has seen N failures of this rollout and lifts its halt."""
CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
DEFAULT_LOCK = "default"

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
VERSION_PATTERN = r"^[0-9A-Za-z][0-9A-Za-z.+_~-]*$"
CHANNEL_PATTERN = r"^[0-9A-Za-z][0-9A-Za-z._-]*$"
REPOSITORY_PATTERN = r"^https?://[^\s/@]+(/[^\s]*)?$"
"""Without user and password: the URL is shown in statuses and logs."""
MOST_MIRRORS = 8
"""Mirrors that a policy may name."""
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

Digest = Annotated[
    str,
    Field(pattern=DIGEST_PATTERN, max_length=71, json_schema_extra={ALLOWED: "sha256: and 64 lower-case hex digits"}),
]
ReleaseVersion = Annotated[
    str,
    Field(
        pattern=VERSION_PATTERN,
        min_length=1,
        max_length=128,
        json_schema_extra={ALLOWED: "letters, digits and . + _ ~ -, with a letter or digit first, such as 2.0.0"},
    ),
]
RepositoryURL = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        pattern=REPOSITORY_PATTERN,
        json_schema_extra={ALLOWED: "an http:// or https:// URL without spaces, user or password"},
    ),
]
ChannelName = Annotated[
    str,
    Field(
        pattern=CHANNEL_PATTERN,
        min_length=1,
        max_length=64,
        json_schema_extra={ALLOWED: "letters, digits and . _ -, with a letter or digit first, such as stable"},
    ),
]
Mirrors = Annotated[
    list[RepositoryURL], Field(max_length=MOST_MIRRORS, json_schema_extra={"x-kubernetes-list-type": "set"})
]
BytesPerSecond = Annotated[int, Field(ge=1024, le=1_000_000_000_000)]
ObjectName = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        min_length=1,
        max_length=253,
        json_schema_extra={
            ALLOWED: "an object's name: lower-case letters, digits, - and ., with a letter or digit at both ends"
        },
    ),
]
Identifier = Annotated[str, Field(min_length=1, max_length=253)]
MAX_MESSAGE = 1024
"""Characters that a stored sentence may have."""
Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
BootMethod = Literal["Auto", "Kexec", "Firmware"]
OnSilence = Literal["Rollback", "Commit", "Wait"]


def spell_field(name: str) -> str:
    """The wire name of a field: camelCase, with ID and UID in capitals as Kubernetes spells them (nodeUID, bootID)."""
    stem, _, last = name.rpartition("_")
    return to_camel(stem) + last.upper() if stem and last in ("id", "uid") else to_camel(name)


class Model(BaseModel):
    """Base of all documents: camelCase on the wire, docstrings of fields become their descriptions.

    Unknown fields are ignored when read, so an old operator survives a newer CRD.
    """

    model_config = ConfigDict(
        alias_generator=spell_field,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
        frozen=True,
    )

    def dump(self) -> dict[str, Any]:
        """The document as the API server takes it: camelCase, absent instead of null."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Condition(Model):
    """One observation about an object, in the standard shape of Kubernetes conditions."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Name of the condition, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation of the object that this condition was computed from."""
    last_transition_time: Timestamp
    """When status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """CamelCase word for why, the same in events, metrics and the command line."""
    message: Message
    """Sentence for people; empty when there is nothing to add."""
