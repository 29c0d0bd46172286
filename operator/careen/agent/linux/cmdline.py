"""The kernel's command line: reading a word, and making the line for the other slot out of the running one. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BYTES = 2047
"""Longest line that x86 and arm64 take: COMMAND_LINE_SIZE without its zero."""

PANIC_WORDS = ("panic=10", "oops=panic", "softlockup_panic=1", "hung_task_panic=1")
"""A trial that fails must reset, and not wait for somebody at a console. panic: seconds."""

UNBLESSED = "systemd.mask=systemd-bless-boot.service"
"""systemd would mark a counted entry of systemd-boot good by itself, and a trial would be booted again and again: that
word is the agent's. In every line, since the loader's note of the entry outlives a kexec."""

_STALE_KEYS = frozenset(
    {
        "BOOT_IMAGE", "initrd", "usr", "usrhash", "mount.usr", "mount.usrfstype", "mount.usrflags", "usrfstype",
        "usrflags", "systemd.verity", "systemd.verity_usr_data", "systemd.verity_usr_hash",
        "systemd.verity_usr_options", "flatcar.first_boot", "coreos.first_boot",
    }
)  # fmt: skip
_STALE_PREFIXES = ("careen.", "verity.usr")
_PLAIN = re.compile(r"[A-Za-z0-9._:+@-]+")


class CommandLineError(ValueError):
    """The line can't be made; the message says why."""


@dataclass(frozen=True)
class NextBoot:
    """What the next kernel is to be told. order: empty for what is no trial by kexec.

    watchdog_seconds: 0 for none; counts for a trial only.
    """

    slot: str
    root_hash: str
    method: str
    order: str = ""
    watchdog_seconds: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The words, each once."""
        words = [f"careen.slot={self.slot}", f"careen.usrhash={self.root_hash}", f"careen.boot={self.method}"]
        if self.order:
            words.append(f"careen.order={self.order}")
        words += [*PANIC_WORDS, UNBLESSED]
        if self.order and self.watchdog_seconds:
            # The driver would keep a running watchdog alive by itself until somebody opens it: only for so long.
            words += ["watchdog.stop_on_reboot=0", f"watchdog.open_timeout={self.watchdog_seconds}"]
        return tuple(words)


def split_words(line: str) -> list[str]:
    """The words of a line as the kernel splits it: at white space outside double quotes, the quotes kept."""
    return re.findall(r'(?:"[^"]*"?|[^\s"])+', line)


def find_word(line: str, key: str) -> str | None:
    """The last value of `key=value` before `--`; empty for a bare key; None if it is not there."""
    found = None
    for word in _split_init(split_words(line))[0]:
        name, _, value = word.strip('"').partition("=")
        if name == key:
            found = value.strip('"')
    return found


def compose_line(running: str, following: NextBoot) -> str:
    """The next kernel's line: the running one without stale words, then ours, in front of what init is given.

    Order and quotes of all other words stay. Raises CommandLineError if it would be too long, or a value needs quotes.
    """
    for value in (following.slot, following.root_hash, following.method, following.order):
        if value and not _PLAIN.fullmatch(value):
            raise CommandLineError(f"{value!r} can't be a word of the kernel's command line; allowed: {_PLAIN.pattern}")
    ours = following.words
    # Other units may be masked too, each by a word with the same key.
    keys = {_key(word) for word in ours if word != UNBLESSED}
    if find_word(running, "careen.order") is not None:
        # Of the trial that runs: where nobody opens a running watchdog, the next kernel is to keep it alive for good.
        keys.add("watchdog.open_timeout")
    kernel, init = _split_init(split_words(running))
    kept = [word for word in kernel if word != UNBLESSED and not _is_stale(word, keys)]
    line = " ".join([*kept, *ours, *init])
    if len(line.encode()) > MAX_BYTES:
        raise CommandLineError(f"the kernel's command line has {len(line.encode())} bytes; allowed: {MAX_BYTES}")
    return line


def _split_init(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The kernel's words, and what comes from `--` on, which is init's."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at:])


def _key(word: str) -> str:
    """A word's key; the kernel takes - and _ for the same."""
    return word.strip('"').partition("=")[0].replace("-", "_")


def _is_stale(word: str, ours: set[str]) -> bool:
    key = _key(word)
    return key in _STALE_KEYS or key in ours or key.startswith(_STALE_PREFIXES)
