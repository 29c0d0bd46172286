"""A repository with keys, releases and a web server, all of this process."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from careen.release.client import ReleaseClient
from careen.release.keys import Signers
from careen.release.manifest import Image, ReleaseDocument, StaticFile
from careen.release.repository import DOCUMENT_NAME, Published, create_repository, publish_release
from careen.release.trust import ROLES, RoleName
from careen.release.verity import BLOCK_BYTES, count_tree_bytes

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_signers() -> dict[RoleName, CryptoSigner]:
    """A key for each role."""
    return {name: CryptoSigner.generate_ed25519() for name in ROLES}


def by_id(*signers: CryptoSigner) -> Signers:
    """As the library wants them."""
    return {signer.public_key.keyid: signer for signer in signers}


def write_build(folder: Path, version: str, architecture: str = "x86_64", **fields: object) -> ReleaseDocument:
    """A folder as build makes it, with contents that only look like a release."""
    (folder / "files").mkdir(parents=True)
    files = {}
    for name in ("tree", "table", "frames"):
        data = f"{version} {architecture} {name}".encode()
        digest = sha256(data).hexdigest()
        files[name] = StaticFile(path=f"files/{digest}.{name}", length=len(data), sha256=digest)
        (folder / files[name].path).write_bytes(data)
    size = 300 * BLOCK_BYTES + count_tree_bytes(300)
    image = Image(filesystem="ext4", size=size, sha256="ab" * 32, data_blocks=300, verity_root="cd" * 32, **files)
    values: dict[str, object] = {"version": version, "product": "demo", "images": {architecture: image}} | fields
    document = ReleaseDocument.model_validate(values)
    (folder / DOCUMENT_NAME).write_bytes(document.dump())
    return document


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A web server for the folder, on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Shop:
    """A repository, its keys, its clock, and a machine that reads it."""

    base: Path
    folder: Path
    keys: dict[RoleName, CryptoSigner]
    root: bytes = b""
    now: datetime = START
    url: str = ""
    builds: int = field(default=0)

    @property
    def signers(self) -> Signers:
        """All keys at hand."""
        return by_id(*self.keys.values())

    def clock(self) -> datetime:
        """The time for who publishes and who reads."""
        return self.now

    def pass_time(self, **span: float) -> None:
        """Let time go on."""
        self.now += timedelta(**span)

    def publish(self, version: str, *channels: str, architectures: tuple[str, ...] = ("x86_64",)) -> Published:
        """Build and publish something."""
        builds = []
        for architecture in architectures:
            self.builds += 1
            builds.append(self.base / f"build-{self.builds}")
            write_build(builds[-1], version, architecture)
        return publish_release(self.folder, builds, self.signers, channels=channels, now=self.clock)

    def client(self, name: str = "machine", **options: float) -> ReleaseClient:
        """A machine with a folder of its own."""
        return ReleaseClient(self.base / name, self.root, self.clock, **options)

    def forge(
        self,
        role: RoleName,
        change: Callable[[Any], None],
        *,
        by: CryptoSigner | None = None,
        number: int | None = None,
    ) -> bytes:
        """Change the newest metadata of a role and sign it with a key (default: its own, as a thief of it could)."""
        pattern = "timestamp.json" if role == "timestamp" else f"[0-9]*.{role}.json"
        # By length first: 10 comes after 9.
        path = max(self.folder.joinpath("metadata").glob(pattern), key=lambda path: (len(path.name), path.name))
        metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
        change(metadata.signed)
        metadata.sign(by or self.keys[role])
        data = metadata.to_bytes()
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        self.metadata(name).write_bytes(data)
        return data

    def metadata(self, name: str) -> Path:
        """A file of the signed metadata."""
        return self.folder / "metadata" / name

    def save(self) -> Mapping[str, bytes]:
        """All signed metadata as it is now."""
        return {path.name: path.read_bytes() for path in self.folder.joinpath("metadata").iterdir()}

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """What somebody in the way of the network does with old answers."""
        for name, data in saved.items():
            self.metadata(name).write_bytes(data)


@pytest.fixture
def empty_shop(tmp_path: Path) -> Iterator[Shop]:
    """A repository without releases."""
    shop = Shop(tmp_path, tmp_path / "repository", make_signers())
    public = {name: [signer.public_key] for name, signer in shop.keys.items()}
    shop.root = create_repository(shop.folder, public, shop.signers, now=shop.clock)
    with serve(shop.folder) as url:
        shop.url = url
        yield shop


@pytest.fixture
def shop(empty_shop: Shop) -> Shop:
    """A repository with releases 1.0 and 1.1, and the channel stable at 1.1."""
    empty_shop.publish("1.0", "stable")
    empty_shop.publish("1.1", "stable")
    return empty_shop


@pytest.fixture
def write() -> Callable[..., ReleaseDocument]:
    """Writes a folder as build makes it: write(folder, version, architecture, **fields)."""
    return write_build


@pytest.fixture
def web() -> Callable[[Path], AbstractContextManager[str]]:
    """A web server for a folder: with web(folder) as url."""
    return serve
