"""Every command of README.md and docs/quick-start.md is run as it is written, or named here with the reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pages import SHELL, Block, Page, read_page
from shells import UP, Shell, make_programs, run_script

QUICK_START = read_page("docs/quick-start.md")
README = read_page("README.md")
RELEASES = read_page("docs/releases.md")
TEST_TARGET = "this test is a part of it"
CHART = "a sandbox has an install of its own; tests/chart installs the chart"
ENGINE = "needs a container engine"
NOT_RUN = {
    "make demo": "tests/api/test_demo.py runs it",
    "make demo-vm": "needs root and minutes of virtual machines",
    "make test": TEST_TARGET,
    "make test-vm": "needs root and minutes of virtual machines",
    "make setup": TEST_TARGET,
    ". .venv/bin/activate": "the test has its own programs on the PATH",
    UP: "the fixture runs it, in the background",
    "kubectl create namespace careen-system": CHART,
    "kubectl label namespace careen-system pod-security.kubernetes.io/enforce=privileged": CHART,
    "helm install careen charts/careen --namespace careen-system --wait --set-file trust.root=root.json": CHART,
    "make kind-demo": ENGINE,
    "make kind-down": ENGINE,
    "python3 -m http.server --directory repository": "serves until it is stopped, and is not ours",
}
# Each takes a tenth of it on two quiet processors.
QUICK_SECONDS = 480.0
README_SECONDS = 300.0
RELEASES_SECONDS = 200.0


def test_what_is_not_run_is_still_there() -> None:
    there = {
        command
        for page in (README, QUICK_START, RELEASES)
        for block in _shell_blocks(page)
        for command in block.commands
    }
    assert sorted(set(NOT_RUN) - there) == []


def test_a_new_command_is_run() -> None:
    page = Page(
        "x.md",
        "```sh\nmake demo # not here\ncareen new --flag \\\n  more\ncat <<EOF\n- a\nEOF\n```\n```yaml\na: 1\n```\n",
    )
    assert list(write_steps(page)) == [
        ("x.md:2", "careen new --flag \\\n  more"),
        ("x.md:2", "cat <<EOF\n- a\nEOF"),
        ("x.md:10", "kubectl apply -f - <<'EOF'\na: 1\nEOF"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_start(shell: Shell) -> None:
    # Other sandboxes of this user may be up beside the test's.
    choice = {"careen sandbox env": f"careen sandbox env --kubeconfig {shell.kubeconfig}"}
    output = run_page(shell, QUICK_START, choice, QUICK_SECONDS)
    assert "careen plan os" in output
    assert "Panic" in output
    assert output.count("updatepolicy.careen.dev/os condition met") == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readme(shell: Shell) -> None:
    shell.repository.publish("3.0.0", channels=("stable",))
    prepare = f"""
eval "$(careen sandbox env --kubeconfig {shell.kubeconfig})"
kubectl delete updatepolicy --all
kubectl label nodes --all role=worker
"""
    nearer = {
        "https://releases.example.com/os": shell.releases,
        "https://mirror.example.net/os": shell.releases,
        # Half an hour of soaking, and a minute of being Ready.
        "soakSeconds: 1800": "soakSeconds: 1",
        "soakSeconds: 600": "soakSeconds: 1",
        "readySeconds: 60": "readySeconds: 0",
        "--timeout=2h": "--timeout=2m",
    }
    output = run_page(shell, README, nearer, README_SECONDS, prepare)
    assert "updatepolicy.careen.dev/workers condition met" in output
    assert "updatepolicy workers paused" in output


def test_releases(tmp_path: Path) -> None:
    """The commands for makers of releases need files only."""
    changes = {"0615ab360aff": "$(careen release keys show keys/timestamp.pem | cut -c1-12)"}
    prepare = """
mkdir -p rootfs/usr/lib online
echo ID=myos >rootfs/usr/lib/os-release
"""
    online = "cp keys/timestamp.pem keys/snapshot.pem online"
    people = "careen release keys create . --name ann --name bob"
    steps = []
    for _, command in write_steps(RELEASES, languages=("sh",)):
        steps += [before for word, before in (("online", online), ("ann.pub.pem", people)) if word in command]
        steps.append(_change(command, changes))
    environment = make_programs(tmp_path / "bin")
    code, output = run_script("\n".join(["set -x", prepare, *steps]), tmp_path, environment, RELEASES_SECONDS)
    assert code == 0, output
    assert "2026.11.1 sha256:" in output
    assert "draft 3.root.json waits" in output


def run_page(shell: Shell, page: Page, changes: dict[str, str], seconds: float, prepare: str = "") -> str:
    """Run all steps of a page in one shell; what they printed. Fails with the step that failed."""
    script = [prepare]
    for place, command in write_steps(page):
        script += [f"echo '== {place}: {_first_line(command)}'", _change(command, changes)]
    for old in changes:
        assert old in page.text, f"{page.name} has no {old!r} any more"
    code, output = shell.run("\n".join(script), seconds)
    assert code == 0, f"exit code {code} of the last of these:\n{output}"
    return output


def write_steps(page: Page, languages: tuple[str, ...] = SHELL) -> Iterator[tuple[str, str]]:
    """Place and text of each command to run; objects are applied."""
    for block in page.blocks:
        place = f"{block.page}:{block.line}"
        if block.language == "yaml":
            yield place, f"kubectl apply -f - <<'EOF'\n{block.text}EOF"
        elif block.language in languages:
            yield from ((place, command) for command in block.commands if command not in NOT_RUN)


def _change(command: str, changes: dict[str, str]) -> str:
    """The command with what would take too long, or lead away, replaced; one that never ends is ended."""
    for old, new in changes.items():
        command = command.replace(old, new)
    return f"timeout 5 {command} || test $? = 124" if "--watch" in command else command


def _shell_blocks(page: Page) -> list[Block]:
    return [block for block in page.blocks if block.language in SHELL]


def _first_line(command: str) -> str:
    return command.splitlines()[0].replace("'", '"')
