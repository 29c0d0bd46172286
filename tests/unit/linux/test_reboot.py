"""The program that resets a machine whose shutdown hangs: it waits by itself, under a name that systemd spares."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from careen.agent.linux.reboot import Rebooter
from linux_machines import FakeMachine


def test_it_waits_in_a_process_that_the_last_sweep_spares_and_then_resets(bare: FakeMachine, tmp_path: Path) -> None:
    Rebooter(bare.root, bare.commands, 1).request("Firmware")
    planted = next(line for line in bare.commands.ran if line.startswith("systemd-run"))
    script = planted.partition("/bin/bash -c ")[2]
    # Everything that would touch this machine is a name in tmp_path instead.
    safe = script.replace("/proc/sysrq-trigger", f"{tmp_path}/trigger").replace("/proc/sys/kernel", str(tmp_path))
    safe = safe.replace("exec systemctl", "echo").replace("kexec -u", "true").replace("sync", "true")
    safe = safe.replace("-t 5", "-t 0.1")
    safe = safe.replace("/run/careen/", str(bare.root.at("/run/careen/")) + "/")
    assert "/proc/" not in safe
    child = subprocess.Popen(["/bin/bash", "-c", safe], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        assert child.poll() is None
        assert Path(f"/proc/{child.pid}/cmdline").read_text().startswith("@careen-forced-reboot\0")
        # Not even one that has ended: systemd would wait for it, in vain.
        assert Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text() == ""
        output, _ = child.communicate(timeout=10)
    finally:
        child.kill()
    assert output == "reboot --force --force\n"
    assert (tmp_path / "trigger").read_text() == "b\n"
