"""The next kernel's command line: stale words out, ours in once, all else as it was."""

from __future__ import annotations

import pytest

from careen.agent.linux.cmdline import PANIC_WORDS, CommandLineError, NextBoot, compose_line, find_word, split_words

ROOT = "ab" * 32
TRIAL = NextBoot("B", ROOT, "kexec", "order-1", 180)


def test_a_trial_is_told_its_slot_its_root_hash_its_order_and_to_reset_when_it_fails() -> None:
    line = compose_line("console=ttyS0 careen.slot=A careen.usrhash=ff careen.boot=firmware quiet", TRIAL)
    assert line == (
        f"console=ttyS0 quiet careen.slot=B careen.usrhash={ROOT} careen.boot=kexec careen.order=order-1 "
        "panic=10 oops=panic softlockup_panic=1 hung_task_panic=1 "
        "systemd.mask=systemd-bless-boot.service watchdog.stop_on_reboot=0 watchdog.open_timeout=180"
    )


def test_a_boot_by_the_loader_has_no_order_and_no_watchdog() -> None:
    line = compose_line("quiet", NextBoot("A", ROOT, "firmware"))
    assert "careen.order" not in line
    assert "watchdog" not in line
    assert "careen.boot=firmware" in line
    assert all(word in line.split() for word in PANIC_WORDS)


@pytest.mark.parametrize("following", [TRIAL, NextBoot("B", ROOT, "firmware")])
def test_systemd_does_not_mark_a_trial_good_by_itself(following: NextBoot) -> None:
    line = compose_line("quiet systemd.mask=other.service", following)
    assert [word for word in split_words(line) if word.startswith("systemd.mask=")] == [
        "systemd.mask=other.service", "systemd.mask=systemd-bless-boot.service",
    ]  # fmt: skip
    assert compose_line(line, following) == line


def test_what_the_watchdog_was_told_for_a_trial_ends_with_it() -> None:
    following = NextBoot("B", ROOT, "firmware")
    assert "open_timeout" not in compose_line(compose_line("quiet", TRIAL), following)
    assert "watchdog.open_timeout=9" in compose_line("quiet watchdog.open_timeout=9", following)


@pytest.mark.parametrize(
    "stale",
    [
        "BOOT_IMAGE=/vmlinuz-a", "initrd=\\careen\\a\\initrd", "usr=PARTUUID=1", "usrhash=00", "mount.usr=/dev/vda3",
        "mount.usrflags=ro", "verity.usr=PARTUUID=1", "verity.usrhash=00", "systemd.verity_usr_data=/dev/vda3",
        "systemd.verity_usr_hash=/dev/vda3", "flatcar.first_boot=detected", "careen.order=order-0", "panic=0",
        "oops=nothing", "softlockup-panic=0", "watchdog.open_timeout=5", 'careen.note="a b"',
    ],
)  # fmt: skip
def test_words_of_the_old_side_go(stale: str) -> None:
    assert split_words(compose_line(f"first {stale} last", TRIAL))[:2] == ["first", "last"]
    assert stale not in split_words(compose_line(f"first {stale} last", TRIAL))


def test_quotes_order_and_init_words_are_kept() -> None:
    line = compose_line('dyndbg="file a +p" x="1 2" root=LABEL=ROOT -- single careen.slot=A', TRIAL)
    words = split_words(line)
    assert words[:3] == ['dyndbg="file a +p"', 'x="1 2"', "root=LABEL=ROOT"]
    assert words[-3:] == ["--", "single", "careen.slot=A"]


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(CommandLineError, match="bytes; allowed: 2047"):
        compose_line("x" * 1900, TRIAL)


@pytest.mark.parametrize("order", ["a b", 'a"b', "a\nb"])
def test_an_order_that_would_be_two_words_is_refused(order: str) -> None:
    with pytest.raises(CommandLineError, match="can't be a word"):
        compose_line("quiet", NextBoot("B", ROOT, "kexec", order))


def test_a_word_is_found_before_the_double_dash_only() -> None:
    assert find_word("a=1 careen.slot=A b careen.slot=B -- careen.slot=C", "careen.slot") == "B"
    assert find_word("quiet", "careen.slot") is None
    assert find_word("careen.order", "careen.order") == ""
