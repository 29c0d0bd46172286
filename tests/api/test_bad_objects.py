"""Invalid objects: the API server refuses each, names the field, and says what is allowed."""

import copy

import pytest

from bad_objects import BASE, DIGEST, LOCK, NODE, POLICY, Edit, assert_refused, cases, put
from careen.sandbox.client import Api, ApiError
from careen.sandbox.cluster import Cluster

BAD_POLICIES: list[tuple[str, Edit, str, str]] = [
    ("no spec", lambda it: it.pop("spec"), "spec", "Required value"),
    ("no release", put("spec.release", None), "spec.release", "Required value"),
    ("no repository", put("spec.release.repository", None), "spec.release.repository", "Required value"),
    (
        "neither channel, version nor digest",
        put("spec.release.version", None),
        "spec.release",
        "exactly one of channel, version and digest",
    ),
    (
        "version and digest",
        put("spec.release.digest", DIGEST),
        "spec.release",
        "exactly one of channel, version and digest",
    ),
    ("channel and version", put("spec.release.channel", "stable"), "spec.release", "exactly one of channel, version"),
    (
        "channel that is a path",
        put("spec.release", {"repository": "http://127.0.0.1/os", "channel": "../stable"}),
        "spec.release.channel",
        "letters, digits and . _ -",
    ),
    ("mirror of another scheme", put("spec.release.mirrors", ["ftp://a/b"]), "release.mirrors[0]", "http:// or https"),
    ("a mirror twice", put("spec.release.mirrors", ["http://a"] * 2), "release.mirrors[1]", "Duplicate value"),
    (
        "nine mirrors",
        put("spec.release.mirrors", [f"http://m{index}" for index in range(9)]),
        "spec.release.mirrors",
        "at most 8 items",
    ),
    ("1 byte per second", put("spec.release.bytesPerSecond", 1), "release.bytesPerSecond", "or equal to 1024"),
    ("a downgrade as a word", put("spec.release.allowDowngrade", "yes"), "spec.release.allowDowngrade", "boolean"),
    ("no deadman as a word", put("spec.boot.allowNoDeadman", "yes"), "spec.boot.allowNoDeadman", "boolean"),
    (
        "short digest",
        put("spec.release", {"repository": "http://127.0.0.1/os", "digest": "sha256:abc"}),
        "spec.release.digest",
        "sha256: and 64 lower-case hex digits",
    ),
    (
        "version with a space",
        put("spec.release.version", "2 0"),
        "spec.release.version",
        "letters, digits and . + _ ~ -",
    ),
    (
        "repository with a password",
        put("spec.release.repository", "https://me:secret@a/b"),
        "repository",
        "without spaces, user or password",
    ),
    (
        "repository of another scheme",
        put("spec.release.repository", "ftp://a/b"),
        "repository",
        "http:// or https:// URL",
    ),
    ("paused as a word", put("spec.paused", "yes"), "spec.paused", "boolean"),
    ("maxUnavailable 0", put("spec.strategy.maxUnavailable", 0), "spec.strategy.maxUnavailable", "from 1 to 100000"),
    ("maxUnavailable -1", put("spec.strategy.maxUnavailable", -1), "spec.strategy.maxUnavailable", "from 1 to 100000"),
    ("maxUnavailable 0%", put("spec.strategy.maxUnavailable", "0%"), "spec.strategy.maxUnavailable", '"1%" to "100%"'),
    ("maxUnavailable 101%", put("spec.strategy.maxUnavailable", "101%"), "strategy.maxUnavailable", '"1%" to "100%"'),
    (
        "maxUnavailable in words",
        put("spec.strategy.maxUnavailable", "all"),
        "strategy.maxUnavailable",
        '"1%" to "100%"',
    ),
    ("maxUnavailable as text", put("spec.strategy.maxUnavailable", "2"), "strategy.maxUnavailable", "a whole number"),
    (
        "topology budget of half a machine",
        put("spec.strategy.topology.0.maxUnavailable", 0.5),
        "spec.strategy.topology[0].maxUnavailable",
        "integer",
    ),
    (
        "two topology keys",
        lambda it: it["spec"]["strategy"]["topology"].append({"key": "rack", "maxUnavailable": 1}),
        "spec.strategy.topology",
        "at most 1 item",
    ),
    ("maxStaging 0", put("spec.strategy.maxStaging", 0), "spec.strategy.maxStaging", "greater than or equal to 1"),
    (
        "a wave of nothing",
        put("spec.strategy.waves.0.count", None),
        "waves[0]",
        "exactly one of count, percent and nodeNames",
    ),
    (
        "a wave by count and percent",
        put("spec.strategy.waves.0.percent", 10),
        "spec.strategy.waves[0]",
        "exactly one of count, percent and nodeNames",
    ),
    ("two waves of one name", put("spec.strategy.waves.1.name", "canary"), "spec.strategy.waves[1]", "Duplicate value"),
    ("a wave with a capital", put("spec.strategy.waves.0.name", "Canary"), "waves[0].name", "lower-case letters"),
    ("a wave of 0 %", put("spec.strategy.waves.1.percent", 0), "waves[1].percent", "greater than or equal to 1"),
    (
        "waves of 110 %",
        put("spec.strategy.waves", [{"name": "a", "percent": 60}, {"name": "b", "percent": 50}]),
        "spec.strategy.waves",
        "at most 100",
    ),
    (
        "a wave of no machines",
        put("spec.strategy.waves.0", {"name": "named", "nodeNames": []}),
        "spec.strategy.waves[0].nodeNames",
        "at least 1 item",
    ),
    (
        "a wave of one machine twice",
        put("spec.strategy.waves.0", {"name": "named", "nodeNames": ["node-1", "node-1"]}),
        "spec.strategy.waves[0].nodeNames[1]",
        "Duplicate value",
    ),
    (
        "17 waves",
        put("spec.strategy.waves", [{"name": f"w{index}", "count": 1} for index in range(17)]),
        "spec.strategy.waves",
        "at most 16 items",
    ),
    ("soak of -1", put("spec.strategy.waves.0.soakSeconds", -1), "waves[0].soakSeconds", "greater than or equal to 0"),
    ("a lock with a capital", put("spec.strategy.lock", "Default"), "spec.strategy.lock", "lower-case letters, digits"),
    ("unknown boot method", put("spec.boot.method", "Magic"), "spec.boot.method", '"Auto", "Kexec", "Firmware"'),
    ("unknown onSilence", put("spec.boot.onSilence", "Cry"), "spec.boot.onSilence", '"Rollback", "Commit", "Wait"'),
    ("unknown failure action", put("spec.failure.action", "Rollback"), "spec.failure.action", '"Halt"'),
    ("maxFailed -1", put("spec.failure.maxFailed", -1), "spec.failure.maxFailed", "greater than or equal to 0"),
    ("drain of 0 s", put("spec.drain.timeoutSeconds", 0), "spec.drain.timeoutSeconds", "greater than or equal to 1"),
    (
        "readySeconds beyond the verification's time",
        put("spec.readySeconds", 600),
        "spec.readySeconds",
        "less than verifyTimeoutSeconds",
    ),
    (
        "In without values",
        put("spec.selector.matchExpressions.0.values", []),
        "spec.selector.matchExpressions[0].values",
        "at least one entry with operator In and NotIn",
    ),
    (
        "Exists with values",
        put("spec.selector.matchExpressions.0.operator", "Exists"),
        "spec.selector.matchExpressions[0].values",
        "none with Exists and DoesNotExist",
    ),
    (
        "unknown operator",
        put("spec.selector.matchExpressions.0.operator", "Like"),
        "spec.selector.matchExpressions[0].operator",
        '"In", "NotIn", "Exists", "DoesNotExist"',
    ),
    (
        "label value with a space",
        put("spec.selector.matchLabels", {"a": "b c"}),
        "selector.matchLabels",
        "a label's value",
    ),
    ("empty label key", put("spec.selector.matchLabels", {"": "b"}), "selector.matchLabels", "1 to 317 characters"),
]

BAD_LOCKS: list[tuple[str, Edit, str, str]] = [
    ("no max", put("spec.max", None), "spec.max", "Required value"),
    ("max -1", put("spec.max", -1), "spec.max", "greater than or equal to 0"),
    ("max 5001", put("spec.max", 5001), "spec.max", "less than or equal to 5000"),
]

BAD_NODES: list[tuple[str, Edit, str, str]] = [
    ("abort without cause", put("spec.assignment.goal", "Abort"), "spec.assignment.cause", "set with goal Abort"),
    ("cause without abort", put("spec.assignment.cause", "People"), "spec.assignment.cause", "no other goal"),
    ("unknown goal", put("spec.assignment.goal", "Jump"), "assignment.goal", '"Stage", "Activate", "Commit", "Abort"'),
    (
        "activation from no boot",
        put("spec.assignment.goal", "Activate"),
        "spec.assignment.fromBootID",
        "set with goal Activate and Commit",
    ),
    (
        "boot before activation",
        put("spec.assignment.fromBootID", "b1"),
        "assignment.fromBootID",
        "absent with goal Stage",
    ),
    (
        "order without release",
        put("spec.assignment.release", None),
        "spec.assignment",
        "exactly one of release and request",
    ),
    (
        "order with release and request",
        put("spec.assignment.request", {"action": "Reboot", "id": "r-1"}),
        "spec.assignment",
        "exactly one of release and request",
    ),
    (
        "release of no rollout",
        put("spec.assignment.rollout", None),
        "spec.assignment.release",
        "policy and rollout must be set with release",
    ),
    ("request without id", put("spec.request", {"action": "Reboot"}), "spec.request.id", "Required value"),
    ("request without action", put("spec.request", {"id": "r-1"}), "spec.request.action", "Required value"),
    (
        "request of nobody knows what",
        put("spec.request", {"action": "Halt", "id": "r-1"}),
        "spec.request.action",
        '"Reboot", "Reset"',
    ),
    (
        "request with a space in its id",
        put("spec.request", {"action": "Reboot", "id": "r 1"}),
        "spec.request.id",
        "up to 64 letters, digits",
    ),
    (
        "request with an id of 65",
        put("spec.request", {"action": "Reboot", "id": "r" * 65}),
        "spec.request.id",
        "64",
    ),
    ("unknown boot method", put("spec.boot", {"method": "Magic"}), "spec.boot.method", '"Auto", "Kexec", "Firmware"'),
    ("retry -1", put("spec.retry", -1), "spec.retry", "greater than or equal to 0"),
    ("a name too long for its Lease", put("metadata.name", "n" * 248), "metadata.name", "at most 247 characters"),
]


@cases(BAD_POLICIES)
def test_a_bad_policy_is_refused(plane: Cluster, admin: Api, edit: Edit, field: str, allowed: str) -> None:
    assert_refused(admin, "updatepolicies", POLICY, edit, field, allowed)


@cases(BAD_LOCKS)
def test_a_bad_lock_is_refused(plane: Cluster, admin: Api, edit: Edit, field: str, allowed: str) -> None:
    assert_refused(admin, "rebootlocks", LOCK, edit, field, allowed)


@cases(BAD_NODES)
def test_a_bad_node_is_refused(plane: Cluster, operator_api: Api, edit: Edit, field: str, allowed: str) -> None:
    assert_refused(operator_api, "nodes", NODE, edit, field, allowed)


def test_what_the_bad_objects_were_made_from_is_accepted(plane: Cluster, admin: Api, operator_api: Api) -> None:
    admin.create(f"{BASE}/updatepolicies", POLICY)
    admin.create(f"{BASE}/rebootlocks", LOCK)
    operator_api.create(f"{BASE}/nodes", NODE)


@pytest.mark.parametrize("value", [1, 100000, "1%", "99%", "100%"])
def test_good_budgets_are_accepted(plane: Cluster, admin: Api, value: int | str) -> None:
    document = copy.deepcopy(POLICY)
    document["spec"]["strategy"]["maxUnavailable"] = value
    admin.create(f"{BASE}/updatepolicies", document)


def test_a_typo_is_refused_when_fields_are_checked_strictly(plane: Cluster, admin: Api) -> None:
    document = copy.deepcopy(POLICY)
    document["spec"]["strategy"]["maxUnavailble"] = 3
    query = {"fieldValidation": "Strict"}
    with pytest.raises(ApiError, match=r'unknown field "spec\.strategy\.maxUnavailble"'):
        admin.request("POST", f"{BASE}/updatepolicies", document, query=query)
