"""How fast an unchanged image is staged, beside `openssl dgst -sha256` of the same file, and with how much memory."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import zstandard

from careen.disk.image import create_image, fill_slot
from careen.disk.types import SlotName
from careen.release.bootblock import BootBlock
from careen.release.manifest import FRAME_BLOCKS, Image, StaticFile
from careen.release.verity import BLOCK_BYTES, build_tree, hash_block

MIB = 1 << 20
SIZE = 450 * MIB
RUNS = 3
_FRAME = FRAME_BLOCKS * BLOCK_BYTES


@dataclass(frozen=True)
class Staging:
    """Figures of stagings of one image. Speeds in bytes per second, memory in bytes."""

    openssl: float
    """What openssl hashes the same file with."""
    unchanged: float
    """Staging of what the passive slot holds already."""
    copied: float
    """Staging of what only the booted slot holds."""
    peak: int
    """Peak resident memory of an agent's process in all of them."""

    @property
    def ratio(self) -> float:
        """Speed of an unchanged staging by that of openssl."""
        return self.unchanged / self.openssl


def measure(size: int = SIZE) -> Staging:
    """Stage an image of random bytes over an image file, each time in a process of its own."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("CAREEN_BENCH_FOLDER")) as name:
        folder = Path(name)
        image, document = make_release(folder, size)
        disk = folder / "disk.img"
        create_image(disk, usr_bytes=size + 16 * MIB, root_bytes=MIB)
        boot = BootBlock.model_validate(document["boot"]).encode()
        fill_slot(disk, SlotName.A, image, boot)
        with serve(folder) as url:
            job = folder / "job.json"
            job.write_text(json.dumps({"disk": str(disk), "url": url, **document}))
            copied = run(job)
            times, peaks, hashing = [], [copied["peak"]], []
            for _ in range(RUNS):
                hashing.append(time_openssl(image))
                found = run(job)
                times.append(found["seconds"])
                peaks.append(found["peak"])
        return Staging(size / min(hashing), size / min(times), size / copied["seconds"], int(max(peaks)))


def make_release(folder: Path, size: int) -> tuple[Path, dict[str, object]]:
    """The image's file, and what a staging has to know of it. Its frames are not there: nothing is fetched."""
    dice, image, leaves = random.Random(1), folder / "image", bytearray()
    whole = hashlib.sha256()
    with image.open("wb") as file:
        for _ in range(size // MIB):
            part = dice.randbytes(MIB)
            leaves += b"".join(hash_block(part[at : at + BLOCK_BYTES]) for at in range(0, MIB, BLOCK_BYTES))
            whole.update(part)
            file.write(part)
        tree = build_tree(bytes(leaves))
        whole.update(tree.data)
        file.write(tree.data)
    frames = size // _FRAME
    table = struct.pack(f"<{frames}I", *[_FRAME] * frames)
    digest = "0" * 64
    found = Image(
        filesystem="ext4",
        size=image.stat().st_size,
        sha256=whole.hexdigest(),
        data_blocks=size // BLOCK_BYTES,
        verity_root=tree.root.hex(),
        tree=write_file(folder, "tree", zstandard.compress(tree.data, 1)),
        table=write_file(folder, "table", zstandard.compress(table)),
        frames=StaticFile(path="files/none.frames", length=frames * _FRAME, sha256=digest),
    )
    boot = BootBlock(
        version="1.0.0",
        digest=f"sha256:{digest}",
        verity_root=found.verity_root,
        data_blocks=found.data_blocks,
        size=found.size,
    )
    return image, {"image": found.model_dump(mode="json"), "boot": boot.model_dump(mode="json"), "copy": True}


def write_file(folder: Path, kind: str, data: bytes) -> StaticFile:
    """A file of the repository."""
    digest = hashlib.sha256(data).hexdigest()
    path = f"files/{digest}.{kind}"
    (folder / "files").mkdir(exist_ok=True)
    (folder / path).write_bytes(data)
    return StaticFile(path=path, length=len(data), sha256=digest)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def run(job: Path) -> dict[str, float]:
    """One staging in a process with everything that an agent loads: its seconds, and its peak memory."""
    program = Path(__file__).parents[1] / "tests" / "support" / "staging_process.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(program), str(job)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def time_openssl(image: Path) -> float:
    """Seconds that `openssl dgst -sha256` takes for a file."""
    began = time.monotonic()
    subprocess.run(["openssl", "dgst", "-sha256", str(image)], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began
