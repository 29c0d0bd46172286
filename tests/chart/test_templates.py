"""What the chart becomes, without a cluster: valid values, refused ones, and containers that start as they are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from careen.cli.main import app
from helm import CHART, Helm, HelmError, find

HERE = Path(__file__).parent
VALUES = [*sorted((HERE / "values").glob("*.yaml")), HERE.parent / "e2e/values-kind.yaml"]
RBAC = Path(__file__).parents[2] / "operator" / "careen" / "sandbox" / "rbac.yaml"


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_lint_has_nothing_to_say(helm: Helm, values: Path) -> None:
    helm.run("lint", "--strict", CHART, "--values", values)


@pytest.mark.parametrize(
    "setting",
    [
        "operator.replica=2",
        "agnet.enabled=false",
        "agent.host=windows",
        "operator.replicas=two",
        "image.digest=sha256:abc",
        "metrics.port=0",
        "networkPolicies.egressPorts={https}",
    ],
)
def test_the_schema_refuses(helm: Helm, setting: str) -> None:
    with pytest.raises(HelmError, match="don't meet the specifications of the schema"):
        helm.template("--set", setting)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["trust.root=x", "trust.configMap=ours"], "trust.root and trust.configMap are both set"),
        (["metrics.monitors.enabled=true", "metrics.enabled=false"], "nothing to scrape"),
        (["alerts.enabled=true", "metrics.enabled=false"], "absent for ever"),
        (["metrics.nodes=true", "metrics.enabled=false"], "metrics.nodes needs metrics.enabled"),
    ],
)
def test_values_that_would_do_nothing_are_refused(helm: Helm, settings: list[str], sentence: str) -> None:
    with pytest.raises(HelmError, match=sentence):
        helm.template(*(f"--set={each}" for each in settings))


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_containers_options_exist(helm: Helm, values: Path) -> None:
    commands = typer.main.get_command(app).commands
    for document in helm.template("--values", values, "--set=metrics.agents.enabled=false"):
        if document["kind"] in ("Deployment", "DaemonSet"):
            verb, *options = document["spec"]["template"]["spec"]["containers"][0]["args"]
            known = {
                name for parameter in commands[verb].params for name in (*parameter.opts, *parameter.secondary_opts)
            }
            assert [option for option in options if option.partition("=")[0] not in known] == []


def test_the_roles_are_those_of_the_sandbox_in_which_all_is_tried(helm: Helm) -> None:
    documents = helm.template("--set=machines.certificates=true", "--namespace=careen-system")
    for wanted in yaml.safe_load_all(RBAC.read_text()):
        if wanted["kind"] not in ("Namespace", "ServiceAccount"):
            assert find(documents, wanted["kind"], wanted["metadata"]["name"]) == wanted


def test_without_certificates_the_group_has_no_role(helm: Helm) -> None:
    bindings = [each for each in helm.template() if each["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    assert {subject["kind"] for each in bindings for subject in each["subjects"]} == {"ServiceAccount"}


def test_another_namespace_is_meant_everywhere(helm: Helm) -> None:
    text = helm.run("template", "careen", CHART, "--namespace=elsewhere")
    rules = "\n".join(line for line in text.splitlines() if "description:" not in line)
    assert "system:serviceaccount:elsewhere:careen-operator" in rules
    assert not re.search(r"serviceaccount:careen-system|namespace: careen-system", rules)


def test_each_host_path_and_each_right_of_the_agent_has_its_reason(helm: Helm) -> None:
    lines = (CHART / "templates" / "agent.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.search(r"hostPID:|hostNetwork:|privileged:|mountPropagation|hostPath:", line):
            assert "#" in lines[number - 1] + lines[number - 2], line


def test_an_agent_of_a_disk_image_has_no_rights_on_its_node(helm: Helm) -> None:
    spec = find(helm.template("--set=agent.host=image"), "DaemonSet", "careen-agent")["spec"]["template"]["spec"]
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(spec)
    security = spec["containers"][0]["securityContext"]
    assert "privileged" not in security
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}


def test_the_notes_tell_three_commands(helm: Helm) -> None:
    notes = helm.run("install", "careen", CHART, "--dry-run=client")
    assert len(re.findall(r"^   kubectl ", notes.partition("NOTES:")[2], re.MULTILINE)) == 3
