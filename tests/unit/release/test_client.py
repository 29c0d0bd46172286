"""What a machine believes of a repository, and what it refuses: every way in which signed metadata can be wrong."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from careen.release.client import ReleaseClient
from careen.release.errors import ReleaseMissingError, TrustError
from careen.release.manifest import digest_document
from careen.release.repository import Rotation, rotate_keys, sign_repository


def describe(data: bytes) -> MetaFile:
    return MetaFile.from_data(json.loads(data)["signed"]["version"], data, ["sha256"])


def test_a_release_is_found_by_channel_version_digest_and_path(shop: Any) -> None:
    client = shop.client()
    found = client.find_channel(shop.url, "stable")
    assert found.document.version == "1.1"
    assert found.digest == digest_document(found.data)
    assert found.path == "releases/1.1.json"
    assert client.find_version(shop.url, "1.1") == found
    assert client.find_digest(f"{shop.url}/", found.digest) == found
    assert client.read(shop.url, found.path, found.digest) == found
    assert client.find_version(shop.url, "1.0").document.version == "1.0"


def test_a_channel_moves(shop: Any) -> None:
    client = shop.client()
    client.find_channel(shop.url, "stable")
    shop.publish("1.2", "stable", "beta")
    assert client.find_channel(shop.url, "stable").document.version == "1.2"
    assert client.find_channel(shop.url, "beta").document.version == "1.2"


def test_what_is_not_there_is_named_with_what_is(shop: Any) -> None:
    client = shop.client()
    with pytest.raises(ReleaseMissingError, match=r"has no channel edge; it has stable"):
        client.find_channel(shop.url, "edge")
    with pytest.raises(ReleaseMissingError, match=r"has no release 9\.9; it has 1\.0, 1\.1"):
        client.find_version(shop.url, "9.9")
    with pytest.raises(ReleaseMissingError, match=r"has no release sha256:0.*; it has 1\.0, 1\.1"):
        client.find_digest(shop.url, "sha256:" + "0" * 64)
    with pytest.raises(ReleaseMissingError, match="has no release 9"):
        client.read(shop.url, "releases/9.json", "sha256:" + "0" * 64)


def test_an_order_for_another_digest_is_refused(shop: Any) -> None:
    with pytest.raises(TrustError, match=r"releases/1\.1\.json is signed with the digest sha256:.*expected: sha256:00"):
        shop.client().read(shop.url, "releases/1.1.json", "sha256:" + "0" * 64)


@pytest.mark.parametrize("root", [b"", b"{}", b"no json", b'{"signed": {}, "signatures": []}'])
def test_without_a_good_trust_root_nothing_is_believed(shop: Any, root: bytes) -> None:
    with pytest.raises(TrustError, match="trust root"):
        ReleaseClient(shop.base / "machine", root, shop.clock).find_channel(shop.url, "stable")


def test_a_trust_root_with_a_broken_signature_is_refused(shop: Any) -> None:
    root = json.loads(shop.root)
    root["signed"]["version"] = 7
    with pytest.raises(TrustError, match="trust root is of no use"):
        ReleaseClient(shop.base / "machine", json.dumps(root).encode(), shop.clock).find_channel(shop.url, "stable")


def test_a_repository_of_other_keys_is_refused(shop: Any) -> None:
    foreign = CryptoSigner.generate_ed25519()
    shop.forge("timestamp", lambda signed: None, by=foreign)
    with pytest.raises(TrustError, match=r"timestamp\.json is not signed by the keys it must be: .*0/1 keys"):
        shop.client().find_channel(shop.url, "stable")


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json"])
def test_a_bad_signature_is_refused(shop: Any, name: str) -> None:
    metadata = json.loads(shop.metadata(name).read_bytes())
    signature = metadata["signatures"][0]
    signature["sig"] = ("0" if signature["sig"][0] != "0" else "1") + signature["sig"][1:]
    shop.metadata(name).write_text(json.dumps(metadata, separators=(",", ":")))
    with pytest.raises(TrustError, match=name.split(".")[-2]):
        shop.client().find_channel(shop.url, "stable")


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json"])
@pytest.mark.parametrize("data", [b"", b"<html>log in to this wireless network</html>", b"[" * 3000])
def test_a_file_that_is_none_is_refused(shop: Any, name: str, data: bytes) -> None:
    shop.metadata(name).write_bytes(data)
    with pytest.raises(TrustError, match=name.split(".")[-2]):
        shop.client().find_channel(shop.url, "stable")


def test_an_expired_timestamp_is_refused_and_a_new_one_cures(shop: Any) -> None:
    client = shop.client()
    client.find_channel(shop.url, "stable")
    shop.pass_time(days=8)
    with pytest.raises(TrustError, match=r"timestamp\.json expired at 2026-12-01T12:00:00Z; it is 2026-12-02T12"):
        client.find_channel(shop.url, "stable")
    sign_repository(shop.folder, shop.signers, now=shop.clock)
    assert client.find_channel(shop.url, "stable").document.version == "1.1"


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_other_expired_metadata_is_refused(shop: Any, role: str) -> None:
    def expire(signed: Any) -> None:
        signed.expires = shop.now - timedelta(days=1)
        signed.version += 1

    def point(name: str, data: bytes) -> Any:
        def change(signed: Any) -> None:
            signed.version += 1
            if name == "targets":
                signed.meta["targets.json"] = describe(data)
            else:
                signed.snapshot_meta = describe(data)

        return change

    data = shop.forge(role, expire)
    if role == "targets":
        data = shop.forge("snapshot", point("targets", data))
    shop.forge("timestamp", point("snapshot", data))
    with pytest.raises(TrustError, match=rf"{role}\.json (is expired|expired at)"):
        shop.client().find_channel(shop.url, "stable")


def test_an_expired_root_is_refused_until_the_next_one(shop: Any) -> None:
    shop.pass_time(days=366)
    sign_repository(shop.folder, shop.signers, now=shop.clock)
    with pytest.raises(TrustError, match=r"root\.json expired at 2027-11-24T12:00:00Z"):
        shop.client().find_channel(shop.url, "stable")
    rotate_keys(shop.folder, shop.signers, Rotation(), now=shop.clock)
    assert shop.client().find_channel(shop.url, "stable").document.version == "1.1"


def test_a_wrong_clock_can_be_corrected(shop: Any) -> None:
    wrong = ReleaseClient(shop.base / "a", shop.root, lambda: shop.now + timedelta(days=4000))
    with pytest.raises(TrustError, match="expired"):
        wrong.find_channel(shop.url, "stable")
    corrected = ReleaseClient(shop.base / "a", shop.root, shop.clock)
    assert corrected.find_channel(shop.url, "stable").document.version == "1.1"


def test_old_answers_are_a_rollback_and_refused(shop: Any) -> None:
    client = shop.client()
    old = shop.save()
    shop.publish("1.2", "stable")
    assert client.find_channel(shop.url, "stable").document.version == "1.2"
    shop.restore(old)
    with pytest.raises(TrustError, match=r"timestamp\.json is refused: New timestamp version \d+ must"):
        client.find_channel(shop.url, "stable")
    # Another process with the same folder remembers too.
    with pytest.raises(TrustError, match=r"timestamp\.json is refused"):
        shop.client().find_channel(shop.url, "stable")


def test_an_old_state_at_another_url_is_a_rollback_too(shop: Any, web: Any, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(shop.folder, old)
    client = shop.client()
    shop.publish("1.2", "stable")
    client.find_channel(shop.url, "stable")
    with web(old) as url:
        with pytest.raises(TrustError, match=r"timestamp\.json is refused: New timestamp version \d+ must"):
            client.find_channel(url, "stable")
        # A machine that has seen nothing newer takes it.
        assert shop.client("another").find_channel(url, "stable").document.version == "1.1"


def test_the_same_state_is_read_at_any_url(shop: Any, web: Any, tmp_path: Path) -> None:
    client = shop.client()
    client.find_channel(shop.url, "stable")
    shutil.copytree(shop.folder, tmp_path / "copy")
    with web(tmp_path / "copy") as url:
        assert client.find_channel(url, "stable").document.version == "1.1"


def test_a_snapshot_is_not_rolled_back_by_who_has_the_timestamp_key(shop: Any) -> None:
    client = shop.client()
    old = shop.metadata("3.snapshot.json").read_bytes()
    shop.publish("1.2", "stable")
    client.find_channel(shop.url, "stable")

    def point(signed: Any) -> None:
        signed.version += 1
        signed.snapshot_meta = describe(old)

    shop.forge("timestamp", point)
    with pytest.raises(
        TrustError, match=r"timestamp\.json is refused: New snapshot version must be >= 4, got version 3"
    ):
        client.find_channel(shop.url, "stable")


def test_targets_are_not_rolled_back_by_who_has_the_online_keys(shop: Any) -> None:
    client = shop.client()
    old = shop.metadata("3.targets.json").read_bytes()
    shop.publish("1.2", "stable")
    client.find_channel(shop.url, "stable")

    def point_snapshot(signed: Any) -> None:
        signed.version += 1
        signed.meta["targets.json"] = describe(old)

    snapshot = shop.forge("snapshot", point_snapshot)

    def point(signed: Any) -> None:
        signed.version += 1
        signed.snapshot_meta = describe(snapshot)

    shop.forge("timestamp", point)
    with pytest.raises(TrustError, match=r"snapshot\.json is refused: Expected targets\.json version"):
        client.find_channel(shop.url, "stable")


def test_who_has_the_online_keys_cannot_name_a_release(shop: Any) -> None:
    def add(signed: Any) -> None:
        signed.version += 1
        signed.targets["releases/6.6.json"] = signed.targets["releases/1.0.json"]

    targets = shop.forge("targets", add, by=shop.keys["snapshot"])

    def point_snapshot(signed: Any) -> None:
        signed.version += 1
        signed.meta["targets.json"] = describe(targets)

    snapshot = shop.forge("snapshot", point_snapshot)

    def point(signed: Any) -> None:
        signed.version += 1
        signed.snapshot_meta = describe(snapshot)

    shop.forge("timestamp", point)
    with pytest.raises(TrustError, match=r"targets\.json is not signed by the keys it must be"):
        shop.client().find_version(shop.url, "6.6")


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_files_of_two_states_are_not_mixed(shop: Any, role: str) -> None:
    """Both are signed by the right key; they only do not belong together."""
    shutil.copy(shop.metadata(f"2.{role}.json"), shop.metadata(f"3.{role}.json"))
    with pytest.raises(TrustError, match=rf"{role}\.json is not the file that was signed"):
        shop.client().find_channel(shop.url, "stable")


@pytest.mark.parametrize("change", ["flip", "append", "cut"])
def test_a_changed_document_is_refused(shop: Any, change: str) -> None:
    (path,) = shop.folder.glob("targets/releases/*.1.1.json")
    data = path.read_bytes()
    changes = {"flip": data.replace(b'"demo"', b'"dema"'), "append": data + b" ", "cut": data[:-1]}
    path.write_bytes(changes[change])
    with pytest.raises(TrustError, match=r"releases/1\.1\.json is"):
        shop.client().find_channel(shop.url, "stable")
    path.write_bytes(data)
    assert shop.client().find_channel(shop.url, "stable").document.product == "demo"


def test_after_a_refusal_nothing_of_it_is_kept(shop: Any) -> None:
    client = shop.client()
    good = client.find_channel(shop.url, "stable")
    saved = shop.save()
    foreign = CryptoSigner.generate_ed25519()

    def raise_version(signed: Any) -> None:
        signed.version += 1000

    shop.forge("timestamp", raise_version, by=foreign)
    with pytest.raises(TrustError, match=r"timestamp\.json"):
        client.find_channel(shop.url, "stable")
    shop.restore(saved)
    assert client.find_channel(shop.url, "stable") == good


def test_a_rotated_root_is_followed(shop: Any) -> None:
    client = shop.client()
    client.find_channel(shop.url, "stable")
    fresh = CryptoSigner.generate_ed25519()
    old = shop.keys["root"]
    change = Rotation(add=[("root", fresh.public_key)], remove=[("root", old.public_key.keyid)])
    keys = shop.signers | {fresh.public_key.keyid: fresh}
    rotate_keys(shop.folder, keys, change, now=shop.clock)
    shop.keys["root"] = fresh
    rotate_keys(shop.folder, shop.signers, Rotation(), now=shop.clock)
    shop.publish("1.2", "stable")
    # Both who was there all the time, and who comes with the first root years later.
    assert client.find_channel(shop.url, "stable").document.version == "1.2"
    assert shop.client("late").find_channel(shop.url, "stable").document.version == "1.2"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_revoked_key_signs_nothing_any_more(shop: Any, role: Any) -> None:
    client = shop.client()
    client.find_channel(shop.url, "stable")
    fresh, stolen = CryptoSigner.generate_ed25519(), shop.keys[role]
    change = Rotation(add=[(role, fresh.public_key)], remove=[(role, stolen.public_key.keyid[:10])])
    shop.keys[role] = fresh
    rotate_keys(shop.folder, shop.signers, change, now=shop.clock)
    assert client.find_channel(shop.url, "stable").document.version == "1.1"

    def raise_version(signed: Any) -> None:
        signed.version += 1

    data = shop.forge(role, raise_version, by=stolen)

    def point_snapshot(signed: Any) -> None:
        signed.version += 1
        signed.meta["targets.json"] = describe(data)

    if role == "targets":
        data = shop.forge("snapshot", point_snapshot)

    def point(signed: Any) -> None:
        signed.version += 1
        signed.snapshot_meta = describe(data)

    if role != "timestamp":
        shop.forge("timestamp", point)
    with pytest.raises(TrustError, match=rf"{role}\.json is not signed by the keys it must be"):
        client.find_channel(shop.url, "stable")


def test_a_root_that_the_old_keys_did_not_sign_is_refused(shop: Any) -> None:
    thief = CryptoSigner.generate_ed25519()

    def take_over(signed: Any) -> None:
        signed.version += 1
        signed.add_key(thief.public_key, "root")
        signed.revoke_key(shop.keys["root"].public_key.keyid, "root")

    shop.forge("root", take_over, by=thief)
    with pytest.raises(TrustError, match=r"root\.json is not signed by the keys it must be"):
        shop.client().find_channel(shop.url, "stable")


def test_what_a_kill_leaves_in_the_folder_does_no_harm(shop: Any) -> None:
    client = shop.client()
    good = client.find_channel(shop.url, "stable")
    folder = shop.base / "machine"
    kept = {path.name for path in folder.iterdir()}
    for path in [folder / "timestamp.json", folder / "snapshot.json", folder / "root_history" / "1.root.json"]:
        path.write_bytes(path.read_bytes()[:10])
    (folder / "targets.json").unlink()
    (folder / "tmp12345").write_bytes(b"left")
    (folder / ".timestamp.json.new").write_bytes(b"left")
    assert client.find_channel(shop.url, "stable") == good
    assert {path.name for path in folder.iterdir()} == kept


def test_many_lookups_at_once_share_one_folder(shop: Any) -> None:
    client = shop.client()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: client.find_channel(shop.url, "stable").digest, range(16)))
    assert len(set(found)) == 1
