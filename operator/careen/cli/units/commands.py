"""Programs to run on a machine, and how to get there, as words of a command line. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONNECT_SECONDS = 10
"""Seconds for ssh to reach a machine."""
SSH_FAILED = 255
"""Exit code of ssh itself; what it runs can end with it too, but no program of ours does."""

RELAY = (
    "import os,subprocess,sys,threading\n"
    "child=subprocess.Popen(sys.argv[1:],stdin=subprocess.DEVNULL)\n"
    "def end():\n"
    "    while os.read(0,4096): pass\n"
    "    child.kill()\n"
    "threading.Thread(target=end,daemon=True).start()\n"
    "sys.exit(child.wait())\n"
)
"""Ends the program with the connection: else one that follows a journal would stay on the machine for ever."""


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How ssh gets to machines."""

    user: str | None = None
    """None: ssh's own choice."""
    port: int | None = None
    """None: ssh's own choice."""
    tunnel: str | None = None
    """A host to go through, as ssh's -J takes it."""
    forward_agent: bool = False


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """What of a journal is wanted, and how."""

    lines: int = 10
    follow: bool = False
    output: str = "short"


def show_journal(unit: str, options: JournalOptions) -> list[str]:
    """journalctl as fleetctl calls it."""
    command = ["journalctl", "--unit", unit, "--no-pager", "-n", str(options.lines), "--output", options.output]
    return [*command, "--follow"] if options.follow else command


def show_unit(unit: str) -> list[str]:
    """systemctl as fleetctl calls it."""
    return ["systemctl", "status", "-l", "--no-pager", "--", unit]


def restart_unit(unit: str) -> list[str]:
    """Restart a unit where it is."""
    return ["systemctl", "restart", "--", unit]


def call_ssh(host: str, options: SshOptions, command: Sequence[str] = ()) -> list[str]:
    """ssh to a host, for a shell or for one command."""
    words = ["ssh", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    if options.forward_agent:
        words.append("-A")
    if options.port is not None:
        words += ["-p", str(options.port)]
    if options.user is not None:
        words += ["-l", options.user]
    if options.tunnel is not None:
        words += ["-J", options.tunnel]
    return [*words, "--", host, *([shlex.join(command)] if command else [])]


def find_host_root(pod: Mapping[str, Any]) -> str | None:
    """Where the agent in this pod sees its machine's file system; None for an agent of a simulated machine."""
    container = next((each for each in pod["spec"]["containers"] if each["name"] == "agent"), None)
    if container is None:
        return None
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    variables = {each["name"]: each.get("value") for each in container.get("env") or ()}
    if (_find_option(words, "--host") or variables.get("CAREEN_AGENT_HOST")) != "linux":
        return None
    return _find_option(words, "--host-root") or variables.get("CAREEN_AGENT_HOST_ROOT") or "/"


def _find_option(words: Sequence[str], name: str) -> str | None:
    for at, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and at + 1 < len(words):
            return words[at + 1]
    return None


def enter_machine(root: str, command: Sequence[str], *, ends_with_us: bool) -> list[str]:
    """The command for a container that has the machine's file system there."""
    inner = list(command) if root == "/" else ["chroot", root, *command]
    return ["python3", "-c", RELAY, *inner] if ends_with_us else inner


def ask_kubelet(unit: str, options: JournalOptions) -> dict[str, str | int] | None:
    """The query of a kubelet's logs for the unit's journal; None for what a kubelet can't give.

    It follows nothing, writes short-precise only, knows services only, and takes names without their type.
    """
    stem, _, suffix = unit.rpartition(".")
    if options.follow or not options.output.startswith("short") or suffix != "service" or "\\" in stem:
        return None
    return {"query": stem, "tailLines": options.lines}


def read_kubelet(media_type: str, text: str) -> str | None:
    """The journal in a kubelet's answer; None for the list of /var/log, and where there is no such journal."""
    if media_type != "text/plain" or text.startswith("\noptions present and query resolved to log files"):
        return None
    return text
