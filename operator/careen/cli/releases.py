"""What `careen release inspect` and `build` print: a release, what an update to it fetches, or a repository."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import typer

from careen.cli.tables import add_row, make_table, open_console
from careen.cli.target import CommandError
from careen.release.client import ReleaseClient
from careen.release.contents import Contents
from careen.release.fetcher import fetch_file
from careen.release.inspect import (
    Delta,
    measure_delta,
    read_contents,
    read_file,
    read_leaves,
    read_release,
    read_table,
)
from careen.release.manifest import Image, ReleaseDocument, StaticFile
from careen.release.repository import DOCUMENT_NAME

Read = Callable[[StaticFile], bytes]


def inspect_place(
    place: str,
    *,
    version: str | None,
    channel: str | None,
    against: str | None,
    trust_root: Path | None,
    output: str,
) -> None:
    """Print what `careen release inspect` was asked for. Raises ReleaseError, CommandError, OSError."""
    opened = _open_remote(place, trust_root) if "://" in place else _open_folder(Path(place))
    if not opened.is_build and version is None and channel is None:
        if against is not None:
            raise CommandError("--against compares releases; give --version or --channel too")
        show_contents(opened.contents(), output)
        return
    document, digest = opened.release(version, channel)
    described = describe_release(document, digest)
    if against is not None:
        described["delta"] = _compare(opened, document, against)
    show_release(described, output)


def describe_release(document: ReleaseDocument, digest: str) -> dict[str, Any]:
    """A release as one document."""
    return {"digest": digest, **document.model_dump(by_alias=True, mode="json")}


def show_release(described: dict[str, Any], output: str) -> None:
    """Print a release."""
    if output == "json":
        typer.echo(json.dumps(described, indent=2))
        return
    console = open_console()
    for name in ("product", "version", "digest", "minVersion", "stateVersion", "agentProtocol", "capabilities"):
        value = described[name]
        shown = ", ".join(value) if isinstance(value, list) else value
        console.print(f"{name + ':':15}{'none' if shown in (None, '') else shown}", markup=False)
    table = make_table("ARCHITECTURE", "FILESYSTEM", "IMAGE", "FRAMES", "INDEX", "KERNEL", "ROOT HASH")
    for name, image in described["images"].items():
        index = image["tree"]["length"] + image["table"]["length"]
        kernel = image["kernel"]["path"] if image["kernel"] else "none"
        sizes = [tell_bytes(image["size"]), tell_bytes(image["frames"]["length"]), tell_bytes(index)]
        add_row(table, [name, image["filesystem"], *sizes, kernel, image["verityRoot"]])
    console.print(table)
    for name, delta in described.get("delta", {}).items():
        console.print(f"\n{_tell_delta(name, delta)}", markup=False)


def show_contents(contents: Contents, output: str) -> None:
    """Print a repository."""
    if output == "json":
        kept = [{**asdict(role), "expires": f"{role.expires:%Y-%m-%dT%H:%M:%SZ}"} for role in contents.roles]
        spelled = [{_spell(key): value for key, value in role.items()} for role in kept]
        document = {"channels": contents.channels, "releases": contents.releases, "roles": spelled}
        typer.echo(json.dumps(document, indent=2))
        return
    console = open_console()
    channels = make_table("CHANNEL", "VERSION")
    for name, version in contents.channels.items():
        add_row(channels, [name, version])
    releases = make_table("VERSION", "DIGEST")
    for version, digest in contents.releases.items():
        add_row(releases, [version, digest])
    roles = make_table("ROLE", "VERSION", "EXPIRES", "STATE", "NEEDS", "KEYS")
    for role in contents.roles:
        state = "expired" if role.expired else "valid" if role.valid else "to be signed again"
        state += ", draft waits" if role.waits else ""
        keys = " ".join(keyid[:12] for keyid in role.key_ids)
        needs = f"{role.threshold} of {len(role.key_ids)}"
        add_row(roles, [role.role, role.version, f"{role.expires:%Y-%m-%dT%H:%M:%SZ}", state, needs, keys])
    for number, table in enumerate((channels, releases, roles)):
        if number:
            console.print()
        console.print(table)


def tell_bytes(count: int) -> str:
    """A size as people read it."""
    if count < 10_000:
        return f"{count} B"
    return f"{count / (1 << 10):.0f} KiB" if count < 10 << 20 else f"{count / (1 << 20):.1f} MiB"


class _Place(Protocol):
    """Somewhere that releases can be read from."""

    is_build: bool

    def contents(self) -> Contents:
        """All releases."""
        ...

    def release(self, version: str | None, channel: str | None) -> tuple[ReleaseDocument, str]:
        """One release, and its digest."""
        ...

    def read(self, file: StaticFile) -> bytes:
        """A file of a release, checked."""
        ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_build = (folder / DOCUMENT_NAME).exists()

    def contents(self) -> Contents:
        return read_contents(self._folder, datetime.now(UTC))

    def release(self, version: str | None, channel: str | None) -> tuple[ReleaseDocument, str]:
        return read_release(self._folder, datetime.now(UTC), version=version, channel=channel)

    def read(self, file: StaticFile) -> bytes:
        return read_file(self._folder, file)


class _Remote:
    is_build = False

    def __init__(self, url: str, root: bytes) -> None:
        self._url = url
        self._root = root

    def contents(self) -> Contents:
        with tempfile.TemporaryDirectory() as folder:
            return ReleaseClient(Path(folder), self._root).list_contents(self._url)

    def release(self, version: str | None, channel: str | None) -> tuple[ReleaseDocument, str]:
        with tempfile.TemporaryDirectory() as folder:
            client = ReleaseClient(Path(folder), self._root)
            found = (
                client.find_channel(self._url, channel) if channel else client.find_version(self._url, version or "")
            )
        return found.document, found.digest

    def read(self, file: StaticFile) -> bytes:
        return fetch_file(self._url, file)


def _open_folder(folder: Path) -> _Place:
    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder; allowed: a build, a repository, or the URL of one")
    return _Folder(folder)


def _open_remote(url: str, trust_root: Path | None) -> _Place:
    if trust_root is None:
        raise CommandError(f"{url} is believed only with a trust root; give --trust-root FILE")
    return _Remote(url, trust_root.read_bytes())


def _compare(place: _Place, document: ReleaseDocument, against: str) -> dict[str, dict[str, int]]:
    """What an update from another release fetches, by architecture."""
    other = _open_folder(Path(against)) if (Path(against) / DOCUMENT_NAME).exists() else place
    old, _ = other.release(against, None)
    common = sorted(document.images.keys() & old.images.keys())
    if not common:
        raise CommandError(f"{against} has no architecture in common with {document.version}")
    found = {}
    for name in common:
        delta = _measure(document.images[name], place.read, old.images[name], other.read)
        found[name] = {
            **{_spell(key): value for key, value in asdict(delta).items()},
            "fetchedBytes": delta.fetched_bytes,
        }
    return found


def _measure(image: Image, read: Read, old: Image, read_old: Read) -> Delta:
    leaves = read_leaves(image, read(image.tree))
    lengths = read_table(image, read(image.table))
    return measure_delta(image, leaves, lengths, read_leaves(old, read_old(old.tree)))


def _tell_delta(name: str, delta: dict[str, int]) -> str:
    kept = delta["samePlace"] + delta["reused"]
    return (
        f"{name}: fetches at most {tell_bytes(delta['fetchedBytes'])}: {delta['frames']} frames with "
        f"{tell_bytes(delta['frameBytes'])} for {delta['missing']} missing blocks, {tell_bytes(delta['indexBytes'])} "
        f"of index; of {delta['blocks']} blocks {kept} are there already ({delta['samePlace']} in place), "
        f"{delta['zero']} are zeros"
    )


def _spell(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(word.capitalize() for word in rest)
