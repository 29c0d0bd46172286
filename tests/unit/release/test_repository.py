"""Publishing, signing and key changes, seen from a machine that reads what came of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from careen.release.errors import PublishError, TrustError
from careen.release.inspect import read_contents
from careen.release.keys import create_key, load_key, load_keys, load_public_key
from careen.release.manifest import parse_document
from careen.release.repository import (
    Rotation,
    create_repository,
    merge_builds,
    publish_release,
    rotate_keys,
    set_channels,
    sign_repository,
)


def key_of(signer: CryptoSigner) -> dict[str, CryptoSigner]:
    return {signer.public_key.keyid: signer}


def test_architectures_become_one_release(empty_shop: Any) -> None:
    empty_shop.publish("2.0", "stable", architectures=("x86_64", "aarch64"))
    found = empty_shop.client().find_channel(empty_shop.url, "stable")
    assert sorted(found.document.images) == ["aarch64", "x86_64"]
    for image in found.document.images.values():
        for file in (image.tree, image.table, image.frames):
            assert (empty_shop.folder / file.path).stat().st_size == file.length


def test_the_order_of_builds_makes_no_other_release(shop: Any, write: Any) -> None:
    write(shop.base / "a", "2.0", "x86_64")
    write(shop.base / "b", "2.0", "aarch64")
    first, _ = merge_builds([shop.base / "a", shop.base / "b"])
    second, _ = merge_builds([shop.base / "b", shop.base / "a"])
    assert first.dump() == second.dump()


def test_builds_that_do_not_belong_together_are_refused(shop: Any, write: Any) -> None:
    write(shop.base / "a", "2.0", "x86_64")
    write(shop.base / "b", "2.1", "aarch64")
    write(shop.base / "c", "2.0", "x86_64")
    write(shop.base / "d", "2.0", "aarch64", min_version="1.0")
    with pytest.raises(PublishError, match=r"version is '2\.1'; the first build has '2\.0'"):
        merge_builds([shop.base / "a", shop.base / "b"])
    with pytest.raises(PublishError, match="architecture x86_64 is in another build too"):
        merge_builds([shop.base / "a", shop.base / "c"])
    with pytest.raises(PublishError, match=r"min_version is '1\.0'; the first build has None"):
        merge_builds([shop.base / "a", shop.base / "d"])
    with pytest.raises(PublishError, match="no build is given"):
        merge_builds([])


def test_a_version_is_never_changed(shop: Any, write: Any) -> None:
    write(shop.base / "other", "1.1", state_version=5)
    before = shop.save()
    with pytest.raises(
        PublishError, match=r"version 1\.1 is there with the digest sha256:.*a version is never changed"
    ):
        publish_release(shop.folder, [shop.base / "other"], shop.signers, now=shop.clock)
    assert shop.save() == before


def test_publishing_the_same_again_is_no_new_list(shop: Any) -> None:
    before = shop.metadata("3.targets.json").read_bytes()
    shop.publish("1.1", "stable")
    assert not shop.metadata("4.targets.json").exists()
    assert shop.metadata("3.targets.json").read_bytes() == before


def test_a_damaged_build_is_refused_and_a_damaged_repository_mended(shop: Any, write: Any) -> None:
    document = write(shop.base / "a", "2.0")
    frames = shop.base / "a" / document.images["x86_64"].frames.path
    good = frames.read_bytes()
    frames.write_bytes(good[::-1])
    with pytest.raises(PublishError, match=r"\.frames has the hash .*build it again"):
        publish_release(shop.folder, [shop.base / "a"], shop.signers, channels=["stable"], now=shop.clock)
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"
    frames.write_bytes(good)
    publish_release(shop.folder, [shop.base / "a"], shop.signers, channels=["stable"], now=shop.clock)
    place = shop.folder / document.images["x86_64"].frames.path
    place.write_bytes(good[::-1])
    publish_release(shop.folder, [shop.base / "a"], shop.signers, channels=["stable"], now=shop.clock)
    assert place.read_bytes() == good


def test_a_channel_is_set_to_a_published_version_only(shop: Any) -> None:
    set_channels(shop.folder, "1.0", shop.signers, channels=["stable", "slow"], now=shop.clock)
    assert shop.client().find_channel(shop.url, "slow").document.version == "1.0"
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.0"
    with pytest.raises(PublishError, match=r"has no release 9\.9; publish it first"):
        set_channels(shop.folder, "9.9", shop.signers, channels=["stable"], now=shop.clock)
    with pytest.raises(PublishError, match=r"channel is '\.\./x'; allowed"):
        set_channels(shop.folder, "1.0", shop.signers, channels=["../x"], now=shop.clock)


def test_online_keys_alone_keep_a_repository_alive(shop: Any) -> None:
    online = key_of(shop.keys["snapshot"]) | key_of(shop.keys["timestamp"])
    for _ in range(20):
        shop.pass_time(days=6)
        sign_repository(shop.folder, online, now=shop.clock)
        assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"


def test_targets_are_signed_again_in_time_when_their_key_is_there(shop: Any) -> None:
    shop.pass_time(days=200)
    notes = sign_repository(shop.folder, shop.signers, now=shop.clock)
    assert any(note.text.startswith("targets.json version 4") for note in notes)


def test_without_the_targets_key_nothing_is_published(shop: Any, write: Any) -> None:
    write(shop.base / "new", "3.0")
    before = shop.save()
    online = key_of(shop.keys["snapshot"]) | key_of(shop.keys["timestamp"])
    with pytest.raises(PublishError, match=r"no key for targets\.json is at hand; it needs 1 of the keys"):
        publish_release(shop.folder, [shop.base / "new"], online, channels=["stable"], now=shop.clock)
    assert shop.save() == before


def test_publishing_offline_takes_effect_when_the_online_keys_sign(shop: Any, write: Any) -> None:
    write(shop.base / "new", "3.0")
    done = publish_release(
        shop.folder, [shop.base / "new"], key_of(shop.keys["targets"]), channels=["stable"], now=shop.clock
    )
    assert done.in_force
    assert any("run sign where they are" in note.text and not note.done for note in done.notes)
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"
    sign_repository(shop.folder, shop.signers, now=shop.clock)
    assert shop.client().find_channel(shop.url, "stable").document.version == "3.0"


@pytest.fixture
def two_holders(shop: Any) -> Any:
    """Two people must sign targets and root."""
    second = {role: CryptoSigner.generate_ed25519() for role in ("root", "targets")}
    change = Rotation(
        add=[(role, signer.public_key) for role, signer in second.items()], thresholds={"root": 2, "targets": 2}
    )
    rotate_keys(shop.folder, shop.signers | key_of(second["root"]) | key_of(second["targets"]), change, now=shop.clock)
    return second


def test_what_two_must_sign_waits_for_the_second(shop: Any, two_holders: Any, write: Any) -> None:
    write(shop.base / "new", "3.0")
    online = key_of(shop.keys["snapshot"]) | key_of(shop.keys["timestamp"])
    one = key_of(shop.keys["targets"]) | online
    done = publish_release(shop.folder, [shop.base / "new"], one, channels=["stable"], now=shop.clock)
    assert not done.in_force
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"
    # The same person twice is not two.
    sign_repository(shop.folder, one, now=shop.clock)
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"
    # A second release joins the waiting list, and the first signature on it counts no more.
    write(shop.base / "newer", "3.1")
    publish_release(shop.folder, [shop.base / "newer"], one, channels=["beta"], now=shop.clock)
    sign_repository(shop.folder, key_of(two_holders["targets"]), now=shop.clock)
    sign_repository(shop.folder, online, now=shop.clock)
    client = shop.client()
    assert client.find_channel(shop.url, "stable").document.version == "3.0"
    assert client.find_channel(shop.url, "beta").document.version == "3.1"
    assert list((shop.folder / "drafts").iterdir()) == []


def test_a_root_of_two_holders_changes_when_both_have_signed(shop: Any, two_holders: Any) -> None:
    fresh = CryptoSigner.generate_ed25519()
    first = key_of(shop.keys["root"])
    change = Rotation(
        add=[("timestamp", fresh.public_key)], remove=[("timestamp", shop.keys["timestamp"].public_key.keyid)]
    )
    rotate_keys(shop.folder, first, change, now=shop.clock)
    assert not shop.metadata("3.root.json").exists()
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"
    sign_repository(shop.folder, key_of(two_holders["root"]), now=shop.clock)
    assert shop.metadata("3.root.json").exists()
    with pytest.raises(TrustError, match=r"timestamp\.json is not signed"):
        shop.client().find_channel(shop.url, "stable")
    sign_repository(shop.folder, key_of(fresh) | key_of(shop.keys["snapshot"]), now=shop.clock)
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"


def test_a_draft_that_a_kill_left_behind_does_no_harm(shop: Any) -> None:
    """It came into force long ago; to go on from it would lose what was published since."""
    (shop.folder / "drafts/2.targets.json").write_bytes(shop.metadata("2.targets.json").read_bytes())
    shop.publish("1.2", "stable")
    client = shop.client()
    assert client.find_channel(shop.url, "stable").document.version == "1.2"
    assert client.find_version(shop.url, "1.1").document.version == "1.1"
    assert list((shop.folder / "drafts").iterdir()) == []


def test_rotations_that_can_not_be_are_refused(shop: Any) -> None:
    for rotation, words in [
        (Rotation(remove=[("root", shop.keys["root"].public_key.keyid)]), "root has 0 keys and needs 1"),
        (Rotation(thresholds={"targets": 2}), "targets has 1 keys and needs 2"),
        (Rotation(thresholds={"targets": 0}), "targets has 1 keys and needs 0"),
        (Rotation(remove=[("root", "zz")]), "'zz' is the beginning of 0 keys of root"),
        (Rotation(remove=[("root", "")]), "'' is the beginning of 1 keys of root"),
    ]:
        with pytest.raises(PublishError, match=words):
            rotate_keys(shop.folder, shop.signers, rotation, now=shop.clock)
    online = key_of(shop.keys["timestamp"])
    with pytest.raises(PublishError, match=r"no key for root\.json is at hand"):
        rotate_keys(shop.folder, online, Rotation(), now=shop.clock)
    assert not shop.metadata("2.root.json").exists()


def test_a_repository_is_not_begun_twice_or_without_keys(shop: Any) -> None:
    public = {role: [signer.public_key] for role, signer in shop.keys.items()}
    with pytest.raises(PublishError, match="is a repository already"):
        create_repository(shop.folder, public, shop.signers, now=shop.clock)
    with pytest.raises(PublishError, match="begins with 1 private keys of root at hand"):
        create_repository(shop.base / "new", public, {}, now=shop.clock)
    with pytest.raises(PublishError, match="begins with 1 private keys of snapshot at hand"):
        create_repository(
            shop.base / "new", public, key_of(shop.keys["root"]) | key_of(shop.keys["targets"]), now=shop.clock
        )
    assert list((shop.base / "new").iterdir()) == []
    with pytest.raises(PublishError, match="timestamp has 0 keys and needs 1"):
        create_repository(shop.base / "new2", {**public, "timestamp": []}, shop.signers, now=shop.clock)
    with pytest.raises(PublishError, match="the expiry of snapshot is 0 days; allowed: 1 to 3650"):
        create_repository(shop.base / "new3", public, shop.signers, days={"snapshot": 0}, now=shop.clock)
    with pytest.raises(PublishError, match="holds no root"):
        sign_repository(shop.base, shop.signers, now=shop.clock)
    with pytest.raises(PublishError, match="is no folder"):
        sign_repository(shop.base / "nothing", shop.signers, now=shop.clock)


def test_inspecting_says_what_is_wrong(shop: Any) -> None:
    contents = read_contents(shop.folder, shop.now)
    assert list(contents.releases) == ["1.0", "1.1"]
    assert contents.channels == {"stable": "1.1"}
    assert [role.role for role in contents.roles if role.valid and not role.expired] == [
        "root", "targets", "snapshot", "timestamp",
    ]  # fmt: skip
    fresh = CryptoSigner.generate_ed25519()
    change = Rotation(add=[("targets", fresh.public_key)], remove=[("targets", shop.keys["targets"].public_key.keyid)])
    rotate_keys(shop.folder, key_of(shop.keys["root"]), change, now=shop.clock)
    shop.pass_time(days=10)
    states = {role.role: (role.valid, role.expired) for role in read_contents(shop.folder, shop.now).roles}
    assert states == {
        "root": (True, False), "targets": (False, False), "snapshot": (True, False), "timestamp": (True, True),
    }  # fmt: skip
    remote = shop.client("fresh")
    with pytest.raises(TrustError):
        remote.list_contents(shop.url)


def test_what_is_served_can_be_read_by_everybody(shop: Any, write: Any) -> None:
    """Also when who publishes has a strict umask."""
    write(shop.base / "new", "3.0")
    old = os.umask(0o077)
    try:
        folder = shop.base / "second"
        public = {role: [signer.public_key] for role, signer in shop.keys.items()}
        create_repository(folder, public, shop.signers, now=shop.clock)
        publish_release(folder, [shop.base / "new"], shop.signers, channels=["stable"], now=shop.clock)
    finally:
        os.umask(old)
    for name in ("metadata", "targets", "files"):
        for path in (folder / name, *(folder / name).rglob("*")):
            assert path.stat().st_mode & 0o444 == 0o444, path
            assert path.is_file() or path.stat().st_mode & 0o111 == 0o111, path


def test_a_channel_file_says_what_is_signed(shop: Any) -> None:
    path = max(shop.folder.glob("targets/channels/*.stable.json"), key=lambda path: path.stat().st_mtime_ns)
    found = shop.client().find_channel(shop.url, "stable")
    assert json.loads(path.read_bytes()) == {"version": "1.1", "digest": found.digest}
    assert parse_document(found.data) == found.document


def test_keys_stay_secret_and_are_not_overwritten(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    keyid = create_key(tmp_path / "root.pem")
    assert (tmp_path / "root.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(PublishError, match="never overwritten"):
        create_key(tmp_path / "root.pem")
    locked = create_key(tmp_path / "locked.pem", b"open sesame")
    assert b"ENCRYPTED" in (tmp_path / "locked.pem").read_bytes()
    with pytest.raises(PublishError, match=r"locked\.pem is encrypted; set CAREEN_RELEASE_PASSPHRASE"):
        load_key(tmp_path / "locked.pem")
    with pytest.raises(PublishError, match="or the passphrase is wrong"):
        load_key(tmp_path / "locked.pem", b"sesame")
    assert sorted(load_keys([tmp_path], b"open sesame")) == sorted([keyid, locked])
    assert load_public_key(tmp_path / "root.pub.pem").keyid == keyid
    with pytest.raises(PublishError, match="holds no key; allowed"):
        load_keys([empty])
    (tmp_path / "bad.pem").write_text("-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----\n")
    with pytest.raises(PublishError, match=r"bad\.pem holds no private key"):
        load_key(tmp_path / "bad.pem")
