"""How fast an image is staged, beside `openssl dgst -sha256` of the same file, and with how much memory."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
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
FRAMES = "files/bench.frames"
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
    fetched: float
    """Staging of what neither slot holds, over loopback."""
    peaks: dict[str, int]
    """Peak resident memory of an agent's process, by kind of staging."""

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
        boot = BootBlock.model_validate(document["boot"]).encode()
        with serve(folder) as url:
            job = folder / "job.json"
            job.write_text(json.dumps({"disk": str(disk), "url": url, **document}))
            # Slot A is empty, but it is read for blocks to copy all the same.
            create_image(disk, usr_bytes=size + 16 * MIB, root_bytes=MIB)
            fetched = run(job)
            disk.unlink()
            create_image(disk, usr_bytes=size + 16 * MIB, root_bytes=MIB)
            fill_slot(disk, SlotName.A, image, boot)
            copied = run(job)
            unchanged, hashing = [], []
            for _ in range(RUNS):
                hashing.append(time_openssl(image))
                unchanged.append(run(job))
        peaks = {"fetched": fetched["peak"], "copied": copied["peak"]}
        peaks["unchanged"] = max(found["peak"] for found in unchanged)
        return Staging(
            size / min(hashing),
            size / min(found["seconds"] for found in unchanged),
            size / copied["seconds"],
            size / fetched["seconds"],
            {kind: int(peak) for kind, peak in peaks.items()},
        )


def make_release(folder: Path, size: int) -> tuple[Path, dict[str, object]]:
    """The image's file, and what a staging has to know of it."""
    dice, image, leaves = random.Random(1), folder / "image", bytearray()
    whole, packed, lengths = hashlib.sha256(), hashlib.sha256(), []
    (folder / "files").mkdir()
    with image.open("wb") as file, (folder / FRAMES).open("wb") as frames:
        for _ in range(size // MIB):
            part = dice.randbytes(MIB)
            leaves += b"".join(hash_block(part[at : at + BLOCK_BYTES]) for at in range(0, MIB, BLOCK_BYTES))
            whole.update(part)
            file.write(part)
            for at in range(0, MIB, _FRAME):
                frame = zstandard.compress(part[at : at + _FRAME], 1)
                packed.update(frame)
                lengths.append(len(frame))
                frames.write(frame)
        tree = build_tree(bytes(leaves))
        whole.update(tree.data)
        file.write(tree.data)
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    digest = "0" * 64
    found = Image(
        filesystem="ext4",
        size=image.stat().st_size,
        sha256=whole.hexdigest(),
        data_blocks=size // BLOCK_BYTES,
        verity_root=tree.root.hex(),
        tree=write_file(folder, "tree", zstandard.compress(tree.data, 1)),
        table=write_file(folder, "table", zstandard.compress(table)),
        frames=StaticFile(path=FRAMES, length=sum(lengths), sha256=packed.hexdigest()),
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
    (folder / path).write_bytes(data)
    return StaticFile(path=path, length=len(data), sha256=digest)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback, ranges too."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None:
                return super().do_GET()
            first, last = int(asked[1]), int(asked[2])
            path = Path(self.translate_path(self.path))
            self.send_response(206)
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("Content-Range", f"bytes {first}-{last}/{path.stat().st_size}")
            self.end_headers()
            with path.open("rb") as file:
                file.seek(first)
                self.wfile.write(file.read(last + 1 - first))
            return None

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
