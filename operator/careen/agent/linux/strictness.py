"""What a trial is reset for and a good system is not: a task or a processor that hangs for a while."""

from __future__ import annotations

import logging
import re

from .cmdline import find_word
from .root import Root

logger = logging.getLogger(__name__)

_TRIAL_ONLY = ("hung_task_panic", "softlockup_panic")
_SETTINGS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")


def relax(root: Root) -> None:
    """End the panics for what hangs, which the command line of a trial brought about and which outlive it.

    A storage that stalls for minutes would else reset each machine that waits for it, all at once. What the machine's
    own sysctl settings ask for stays.
    """
    line = root.read("/proc/cmdline") or ""
    for name in _TRIAL_ONLY:
        path = f"/proc/sys/kernel/{name}"
        if find_word(line, name) != "1" or root.read(path) != "1" or _is_set(root, name):
            continue
        try:
            root.at(path).write_text("0\n")
        except OSError as error:
            logger.warning("%s stays 1 after the trial: %s", path, error)


def _is_set(root: Root, name: str) -> bool:
    """Whether a file of the machine sets it to 1."""
    wanted = re.compile(rf"^\s*-?\s*kernel[./]{name}\s*=\s*1\s*$", re.MULTILINE)
    files = ["/etc/sysctl.conf", *(f"{folder}/{name}" for folder in _SETTINGS for name in root.names(folder))]
    return any(wanted.search(root.read(file) or "") for file in files)
