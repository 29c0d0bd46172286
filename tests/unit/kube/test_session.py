"""One request at a time: deadlines, typed errors, credentials that are renewed, streams cut into lines."""

import asyncio
import contextlib
import json
import sys
import time
from datetime import UTC, datetime

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from careen.kube import errors
from careen.kube.credentials import SERVICE_ACCOUNT, load_endpoint
from careen.kube.errors import ConfigError, TooManyRequests, Unreachable
from careen.kube.resources import LEASES, LOCKS, NODES, PODS, describe_request
from careen.kube.retry import retry_idempotent
from careen.kube.session import LineSplitter, RequestRecord, Session

PATH = NODES.path(name="n1")


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.ApiError),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (503, "ServiceUnavailable", errors.ServerError),
    ],
)
async def test_each_refusal_has_its_type_and_says_what_was_asked(fake, session, fail, code, reason, kind):
    fake.faults["other"].append(fail(code, reason, "because of that"))
    with pytest.raises(errors.ApiError) as caught:
        await session.request("PUT", PATH, body={"a": 1})
    assert type(caught.value) is kind
    assert str(caught.value) == f"PUT {PATH}: {code} {reason}: because of that"


async def test_a_refusal_that_is_no_status_object_keeps_its_text(fake, session):
    fake.faults["other"].append(lambda _: web.Response(status=502, text="<h1>Bad gateway</h1>"))
    with pytest.raises(errors.ServerError, match="Bad gateway"):
        await session.request("PUT", PATH, body={})


async def test_flow_control_carries_causes_and_the_wait(fake, session, fail):
    details = {"causes": [{"reason": "DisruptionBudget", "message": "web"}], "retryAfterSeconds": 10}
    fake.faults["other"].append(fail(429, "TooManyRequests", "no", details=details))
    with pytest.raises(TooManyRequests) as caught:
        await session.request("POST", PATH, body={})
    assert caught.value.retry_after == 10.0
    assert caught.value.causes[0]["message"] == "web"


async def test_the_deadline_covers_headers_and_body(fake, session):
    async def trickle(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async def hang(_):
        await asyncio.sleep(5)

    for fault in (hang, trickle):
        fake.faults["other"].append(fault)
        before = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s") as caught:
            await session.request("PUT", PATH, body={}, timeout=0.3)
        assert 0.25 < time.monotonic() - before < 1.0
        assert caught.value.maybe_done


async def test_nobody_there_means_surely_not_done(kubeconfig, unused_tcp_port, write_kubeconfig):
    kubeconfig.write_text(write_kubeconfig(f"http://127.0.0.1:{unused_tcp_port}", {}))
    async with Session.connect(kubeconfig, user_agent="test") as session:
        with pytest.raises(Unreachable) as caught:
            await session.request("PATCH", PATH, body={})
        assert not caught.value.maybe_done


async def test_a_connection_cut_in_mid_request_may_have_done_it(fake, session):
    fake.faults["other"].append(lambda request: request.transport.abort())
    with pytest.raises(Unreachable) as caught:
        await session.request("PATCH", PATH, body={})
    assert caught.value.maybe_done


async def test_many_requests_are_in_flight_at_once(fake, session):
    together = asyncio.Barrier(40)

    async def meet(_):
        await together.wait()
        return web.json_response({})

    fake.faults["other"].extend([meet] * 40)
    await asyncio.gather(*(session.request("PUT", PATH, body={}) for _ in range(40)))


async def test_a_token_file_is_read_again_when_it_changes(fake, tmp_path, write_kubeconfig):
    token, config = tmp_path / "token", tmp_path / "config"
    token.write_text("one\n")
    config.write_text(write_kubeconfig(f"http://127.0.0.1:{fake.port}", {"tokenFile": "token", "token": "stale"}))
    async with Session.connect(config, user_agent="careen-test/1") as session:
        await session.request("GET", PATH)
        token.rename(tmp_path / "old")
        await session.request("GET", PATH)
        token.write_text("two")
        await session.request("GET", PATH)
    assert [h["Authorization"] for h in fake.headers] == ["Bearer one", "Bearer one", "Bearer two"]
    assert {h["User-Agent"] for h in fake.headers} == {"careen-test/1"}


async def test_a_401_reads_the_kubeconfig_again_and_tries_once_more(fake, session, kubeconfig, fail, write_kubeconfig):
    kubeconfig.write_text(write_kubeconfig(f"http://127.0.0.1:{fake.port}", {"token": "second"}))
    fake.faults["other"].append(fail(401, "Unauthorized", "expired"))
    await session.request("PUT", PATH, body={})
    assert [h["Authorization"] for h in fake.headers] == ["Bearer first", "Bearer second"]
    fake.faults["other"].extend([fail(401, "Unauthorized", "expired")] * 2)
    with pytest.raises(errors.Unauthorized):
        await session.request("PUT", PATH, body={})
    fake.faults["watch"].append(fail(401, "Unauthorized", "expired"))
    stream = session.stream(NODES.path(), {"watch": "1", "resourceVersion": 1})
    fake.put("n")
    assert (await anext(stream))["type"] == "ADDED"
    await stream.aclose()


async def test_forty_refused_requests_read_the_credentials_once(fake, tmp_path, fail, write_kubeconfig):
    script, config = tmp_path / "plugin", tmp_path / "config"
    answer = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    script.write_text(f"#!/bin/sh\necho x >> {tmp_path}/runs\nprintf '{answer}' $(wc -l < {tmp_path}/runs)\n")
    script.chmod(0o755)
    plugin = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}
    config.write_text(write_kubeconfig(f"http://127.0.0.1:{fake.port}", plugin))
    async with Session.connect(config, user_agent="test") as session:
        fake.faults["other"].extend([fail(401, "Unauthorized", "expired")] * 40)
        await asyncio.gather(*(session.request("PUT", PATH, body={}) for _ in range(40)))
    assert [h["Authorization"] for h in fake.headers] == ["Bearer 1"] * 40 + ["Bearer 2"] * 40


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no kubeconfig at"),
        ("{}", "can't be used"),
        ("clusters: [", "can't be used"),
        ({"client-certificate": "no/such/file"}, "no/such/file"),
        ({"tokenFile": "no-token"}, "no-token can't be read"),
        ({"exec": {"apiVersion": "v1", "command": "/no/such"}}, "'/no/such' gave no"),
    ],
)
async def test_a_useless_kubeconfig_is_named_with_its_fault(tmp_path, write_kubeconfig, content, says):
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content if isinstance(content, str) else write_kubeconfig("https://x", content))
    with pytest.raises(ConfigError, match=says) as caught:
        await load_endpoint(path)
    assert "config" in str(caught.value)


async def test_kubeconfig_comes_from_the_environment_then_the_pod(monkeypatch, tmp_path, write_kubeconfig):
    (tmp_path / "a").write_text(write_kubeconfig("http://from-env", {}))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{tmp_path}/a")
    assert (await load_endpoint()).host == "http://from-env"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setattr("careen.kube.credentials.SERVICE_ACCOUNT", tmp_path)
    with pytest.raises(ConfigError, match="mount the service account"):
        await load_endpoint()
    (tmp_path / "ca.crt").write_text("ca")
    (tmp_path / "token").write_text("tok")
    found = await load_endpoint()
    assert (found.host, found.header(), found.tls.ca) == ("https://[fd00::1]:6443", "Bearer tok", "ca")
    assert SERVICE_ACCOUNT.is_absolute()


async def test_each_request_is_counted_by_verb_resource_and_code(fake, kubeconfig, fail):
    records: list[RequestRecord] = []
    async with Session.connect(kubeconfig, user_agent="t", on_request=records.append, request_timeout=0.2) as session:
        fake.faults["other"].append(fail(409, "Conflict", "no"))
        for _ in range(2):
            with contextlib.suppress(errors.Conflict):
                await session.request("PATCH", NODES.path(name="n1", subresource="status"), body={})
        fake.faults["other"].append(lambda request: request.transport.abort())
        with pytest.raises(Unreachable):
            await session.request("POST", PODS.path("ns", "p", "eviction"), body={})
        stream = session.stream(LOCKS.path(), {"watch": "1", "resourceVersion": 1})
        fake.put("x")
        await anext(stream)
        await stream.aclose()
    assert [(r.verb, r.resource, r.code) for r in records] == [
        ("patch", "nodes.careen.dev/status", 409),
        ("patch", "nodes.careen.dev/status", 200),
        ("create", "pods/eviction", 0),
        ("watch", "rebootlocks.careen.dev", 200),
    ]
    assert all(0 < record.seconds < 2 for record in records)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/nodes", ("list", "nodes")),
        ("GET", "/api/v1/namespaces/kube-system", ("get", "namespaces")),
        ("GET", "/api/v1/namespaces/a/pods", ("list", "pods")),
        ("DELETE", LEASES.path("a", "b"), ("delete", "leases.coordination.k8s.io")),
        ("GET", "/readyz", ("get", "/readyz")),
        ("GET", "/apis", ("get", "/apis")),
    ],
)
def test_paths_in_the_audit_logs_words(method, path, expected):
    assert describe_request(method, path) == expected


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a?b=c", "a#b"])
def test_a_name_can_not_leave_its_place_in_the_path(name):
    try:
        path = NODES.path(name=name)
    except ValueError:
        return
    assert path.count("/") == NODES.path(name="x").count("/")
    assert not set("?#") & set(path)


async def test_streams_carry_objects_of_megabytes_but_have_a_limit(fake, session):
    fake.put("big", data="x" * 3_000_000)
    fake.put("small")
    stream = session.stream(NODES.path(), {"watch": "1", "resourceVersion": 1})
    assert [(await anext(stream))["object"]["metadata"]["name"] for _ in range(2)] == ["big", "small"]
    fake.put("huge", data="x" * 5_000_000)
    with pytest.raises(Unreachable, match="longer than 4194304 bytes"):
        await anext(stream)


async def test_a_silent_stream_ends_in_unreachable(fake, session):
    opened = []
    before = time.monotonic()
    with pytest.raises(Unreachable):
        async for _ in session.stream(
            NODES.path(), {"watch": "1", "resourceVersion": 1}, stall=0.3, on_open=lambda: opened.append(1)
        ):
            pass
    assert opened == [1]
    assert 0.25 < time.monotonic() - before < 1.0


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda b: b"\n" not in b)), st.data())
def test_lines_come_out_whole_however_the_stream_is_cut(lines, data):
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    splitter = LineSplitter()
    out = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out += splitter.feed(stream[start:end])
    assert out == lines


async def test_retry_goes_on_over_transient_errors_only_and_stops_at_the_deadline(fake, session, fail):
    async def put():
        return await session.request("PUT", PATH, body={})

    fake.faults["other"].extend([fail(503, "ServiceUnavailable", "no"), fail(500, "InternalError", "no")])
    assert (await retry_idempotent(put, deadline=5)).status == 200
    fake.faults["other"].append(fail(409, "Conflict", "no"))
    with pytest.raises(errors.Conflict):
        await retry_idempotent(put)
    fake.faults["other"].extend([fail(503, "ServiceUnavailable", "no")] * 1000)
    before = time.monotonic()
    with pytest.raises(errors.ServerError):
        await retry_idempotent(put, deadline=0.5)
    assert time.monotonic() - before < 6


async def test_the_servers_time_comes_from_its_answers(fake, session):
    assert session.clock.now(time.monotonic()) is None
    answer = await session.request("PUT", PATH, body={})
    assert abs((answer.date - datetime.now(UTC)).total_seconds()) < 5
    now = session.clock.now(time.monotonic())
    assert -1.5 < now - time.time() < 0.1


@pytest.mark.parametrize(
    "user",
    [
        {"token": "t"},
        {"tokenFile": "token"},
        {"client-certificate": "cert.pem", "client-key-data": "a2V5"},
        {"client-certificate-data": "Y2VydA==", "client-key": "key.pem"},
        {},
    ],
)
async def test_a_plain_kubeconfig_is_read_as_by_the_official_client(tmp_path, monkeypatch, write_kubeconfig, user):
    for name, text in (("token", "from-file"), ("cert.pem", "cert"), ("key.pem", "key"), ("ca.pem", "authority")):
        (tmp_path / name).write_text(text)
    cluster = {"server": "https://x:6443/", "certificate-authority": "ca.pem", "tls-server-name": "api"}
    document = json.loads(write_kubeconfig("https://x", {}))
    document["clusters"][0]["cluster"], document["users"][0]["user"] = cluster, user
    path = tmp_path / "config"
    path.write_text(json.dumps(document))
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    plain = await load_endpoint(path)
    monkeypatch.undo()
    monkeypatch.setattr("careen.kube.credentials._read_plain", lambda *_: None)
    official = await load_endpoint(path)
    assert (plain.host.rstrip("/"), plain.tls, plain.header()) == (
        official.host.rstrip("/"), official.tls, official.header(),
    )  # fmt: skip


async def test_without_the_official_client_a_plugin_is_told_to_be_missing(tmp_path, monkeypatch, write_kubeconfig):
    path = tmp_path / "config"
    path.write_text(write_kubeconfig("https://x", {"exec": {"apiVersion": "v1", "command": "/bin/true"}}))
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    for name in [name for name in sys.modules if name.startswith("kubernetes.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match="can't be used by this build, which has no plugins"):
        await load_endpoint(path)
