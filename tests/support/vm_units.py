"""Units on a machine of a site: handed to the cluster, and seen on the machine itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from careen.api.meta import API_VERSION
from careen.sandbox.client import wait_until
from testos.machine import Machine
from testos.site import Site

UNITS = "/apis/careen.dev/v1alpha1/units"
UNIT_SECONDS = 120.0
"""How long it may take from an order until the machine tells that it is done: software emulation is slow."""
BOX = "/var/lib/box"
"""Where the container's bundle is made."""
BOX_CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 1 & wait $!; done"],
        "env": ["PATH=/bin"],
        "cwd": "/",
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    ],
    # A group of its own below the root: that of the service has runc itself in it.
    "linux": {"cgroupsPath": "/careen-box", "namespaces": [{"type": each} for each in ("pid", "mount", "uts", "ipc")]},
}
BOX_UNIT = f"""[Service]
ExecStartPre=-/usr/sbin/runc delete --force box
ExecStart=/usr/sbin/runc run --bundle {BOX} box
ExecStopPost=-/usr/sbin/runc delete --force box
"""


class Placed:
    """Units on one machine of a site."""

    def __init__(self, site: Site, node: str) -> None:
        self._site = site
        self._node = node

    @property
    def machine(self) -> Machine:
        """The machine."""
        return self._site[self._node]

    def submit(self, name: str, content: str, state: str = "launched", **spec: Any) -> None:
        """Make a Unit of this name; the object's has no characters that objects can't have."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "Unit",
            "metadata": {"name": to_object(name)},
            "spec": {"name": name, "content": content, "desiredState": state, **spec},
        }
        self._site.api.create(UNITS, document)

    def want(self, name: str, **spec: Any) -> None:
        """Change a Unit's spec."""
        self._site.api.patch(f"{UNITS}/{to_object(name)}", {"spec": spec})

    def destroy(self, name: str) -> None:
        """Delete a Unit."""
        self._site.api.delete(f"{UNITS}/{to_object(name)}")

    @property
    def reports(self) -> dict[str, dict[str, Any]]:
        """status.units of the machine, by name."""
        return {each["name"]: each for each in self._site.status(self._node).get("units") or ()}

    def wait(
        self, name: str, check: Callable[[dict[str, Any]], object], seconds: float = UNIT_SECONDS
    ) -> dict[str, Any]:
        """Wait until the machine's report of a unit is so; none yet is an empty one."""
        try:
            (report,) = wait_until(
                lambda: (found,) if check(found := self.reports.get(name, {})) else None, name, seconds, pause=0.5
            )
        except TimeoutError as error:
            journal = self.machine.shell.try_run("journalctl --no-pager -n 40 -u careen-agent")[1]
            raise TimeoutError(f"{error}\n{self._site.node(self._node)}\n{journal}") from None
        return report

    def wait_active(self, name: str, active: str = "active") -> dict[str, Any]:
        """Wait until the machine tells that a unit is in this active state."""
        return self.wait(name, lambda report: report.get("active") == active)

    def wait_loaded(self, name: str) -> dict[str, Any]:
        """Wait until the machine's systemd has read a unit."""
        return self.wait(name, lambda report: report.get("hash") and report["load"] == "loaded")

    def wait_gone(self, name: str) -> None:
        """Wait until the machine tells nothing of a unit any more."""
        self.wait(name, lambda report: not report)

    def show(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as the machine's own systemctl shows them."""
        lines = self.machine.shell.run(f"systemctl show {name} -p {','.join(properties)}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait_there(self, condition: str, seconds: int = 90) -> None:
        """Wait until a command succeeds on the machine."""
        self.machine.shell.run(f"timeout {seconds} sh -c 'until {condition}; do sleep 1; done'", seconds + 30)

    def make_box(self) -> None:
        """Put a container's bundle on the machine's own file system."""
        config = base64.b64encode(json.dumps(BOX_CONFIG).encode()).decode()
        self.machine.shell.run(f"mkdir -p {BOX}/rootfs/bin && cp $(command -v busybox) {BOX}/rootfs/bin/busybox")
        self.machine.shell.run(f"echo {config} | base64 -d > {BOX}/config.json")


def to_object(name: str) -> str:
    """Name of the object of a unit: web@1.service is web-1.service."""
    return name.replace("@", "-")
