"""A boot by kexec that was lost is held against kexec only when the firmware then boots the same release well."""

from __future__ import annotations

from dataclasses import replace

from careen.agent.linux.experience import Experience, learn, load_experience, save_experience
from careen.agent.record import Journal, OpenOrder, Stage
from careen.disk.types import SlotName
from linux_machines import FakeMachine

A, B = SlotName.A, SlotName.B
NEW = "sha256:" + "b" * 64
OPEN = OpenOrder("order-1", NEW, "2.0.0", A, B, "boot-1", "Kexec", 0, 300, "Rollback", Stage.REQUESTED)
LOST = Journal("m", boots=("boot-0", "boot-1"), open=OPEN)
NOTHING = Experience()


def test_a_kexec_that_nobody_came_back_from_makes_a_suspect() -> None:
    assert learn(NOTHING, LOST, A, "boot-2") == Experience(suspect=NEW)
    seen = replace(LOST, boots=("boot-0", "boot-1", "boot-2"))
    assert learn(NOTHING, seen, A, "boot-2") == Experience(suspect=NEW)


def test_a_trial_in_which_an_agent_ran_says_nothing_against_kexec() -> None:
    ran = replace(LOST, boots=("boot-0", "boot-1", "boot-2"))
    assert learn(NOTHING, ran, A, "boot-3") == NOTHING
    assert learn(NOTHING, LOST, B, "boot-2") == NOTHING


def test_nothing_is_learned_before_the_request_or_in_the_same_boot() -> None:
    armed = replace(LOST, open=replace(OPEN, stage=Stage.ARMED))
    assert learn(NOTHING, armed, A, "boot-2") == NOTHING
    assert learn(NOTHING, LOST, A, "boot-1") == NOTHING
    assert learn(NOTHING, None, A, "boot-1") == NOTHING
    assert learn(NOTHING, Journal("m"), A, "boot-1") == NOTHING


def test_the_firmware_decides_who_was_to_blame() -> None:
    again = replace(LOST, open=replace(OPEN, method="Firmware"))
    suspect = Experience(suspect=NEW)
    assert learn(suspect, again, A, "boot-2") == NOTHING
    good = replace(again, open=replace(OPEN, method="Firmware", verdict="COMMIT"))
    assert learn(suspect, good, B, "boot-2") == Experience(doubted=NEW)
    assert learn(NOTHING, good, B, "boot-2") == NOTHING


def test_a_reboot_that_people_asked_for_is_no_trial() -> None:
    asked = replace(LOST, open=replace(OPEN, kind="Reboot", digest="", to_slot=A))
    assert learn(Experience(suspect=NEW), asked, A, "boot-2") == Experience(suspect=NEW)


def test_kexec_is_blamed_for_the_second_release_that_only_the_firmware_boots() -> None:
    good = replace(LOST, open=replace(OPEN, method="Firmware", verdict="COMMIT"))
    once_more = Experience(suspect=NEW, doubted=NEW)
    assert learn(once_more, good, B, "boot-2") == Experience(doubted=NEW), "a power cut may come twice to one release"
    another = Experience(suspect=NEW, doubted="sha256:other")
    assert learn(another, good, B, "boot-2") == Experience(doubted="sha256:other", blamed=NEW)


def test_a_kexec_that_is_committed_clears_all() -> None:
    good = replace(LOST, open=replace(OPEN, verdict="COMMIT"))
    assert learn(Experience(suspect=NEW, doubted="x", blamed="y"), good, B, "boot-2") == NOTHING


def test_it_is_kept_in_a_file(bare: FakeMachine) -> None:
    path = bare.root.at("/var/lib/careen/kexec.json")
    assert load_experience(path) == NOTHING
    save_experience(path, Experience(suspect=NEW))
    assert load_experience(path) == Experience(suspect=NEW)
    path.write_text("[")
    assert load_experience(path) == NOTHING
