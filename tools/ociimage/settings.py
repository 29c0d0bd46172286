"""What the image is: its name, its user, its labels, and what is in it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

TOP = Path(__file__).parents[2]
HERE = Path(__file__).parent
VERSION = re.findall(r'^__version__ = "(.+)"$', (TOP / "operator/careen/__init__.py").read_text(), re.MULTILINE)[0]
REFERENCE = f"ghcr.io/careen-dev/careen:{VERSION}"
USER = 65532
PYTHON = "3.11"
EPOCH_SECONDS = 1_000_000_000
"""The one time of every file and of the image."""
ENTRYPOINT = ("careen",)
WORKING_FOLDER = "/tmp"  # noqa: S108 - the one place that a container with a read-only root can write to
ENVIRONMENT = {
    "PATH": "/usr/bin:/usr/sbin",
    "HOME": WORKING_FOLDER,
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}
LABELS = {
    "org.opencontainers.image.title": "careen",
    "org.opencontainers.image.description": "Operating systems that update themselves across a cluster",
    "org.opencontainers.image.version": VERSION,
    "org.opencontainers.image.source": "https://github.com/careen-dev/careen",
    "org.opencontainers.image.licenses": "Apache-2.0",
}
PACKAGES = (
    "base-files", "ca-certificates", "coreutils", "e2fsprogs", "erofs-utils", "libblkid1", "libbz2-1.0", "libc6",
    "libcom-err2", "libcrypt1", "libexpat1", "libext2fs2", "libffi8", "libgcc-s1", "liblz4-1", "liblzma5",
    "libpcre2-8-0", "libpython3.11-minimal", "libpython3.11-stdlib", "libselinux1", "libss2", "libssl3", "libuuid1",
    "python3.11-minimal", "zlib1g",
)  # fmt: skip
"""All Debian packages that are unpacked, with what they need. No shell, no apt, no pip."""


class ImageError(Exception):
    """The image can't be built or does not hold; the message says what to do about it."""


def debian_architecture() -> str:
    """This machine's architecture as Debian and OCI name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def lock_file() -> Path:
    """The written-down packages of this architecture: one `name version sha256` a line."""
    return HERE / f"packages/{debian_architecture()}.txt"
