"""Signing keys as files: Ed25519, PEM, readable by their owner only, with a passphrase where wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from .durable import write_durably
from .errors import PublishError

KEY_SUFFIX = ".pem"
PUBLIC_SUFFIX = ".pub.pem"
PASSPHRASE_VARIABLE = "CAREEN_RELEASE_PASSPHRASE"  # noqa: S105
"""Environment variable with the passphrase of encrypted keys."""

Signers = dict[str, CryptoSigner]
"""Keys at hand, by key id."""


def create_key(path: Path, passphrase: bytes | None = None) -> str:
    """Make a key, write it to `path` and its public half beside it (NAME.pub.pem), and return its id.

    Raises PublishError if the file is there already, or is not called *.pem.
    """
    if path.suffix != KEY_SUFFIX or path.name.endswith(PUBLIC_SUFFIX):
        raise PublishError(f"{path} is no name for a private key; allowed: *{KEY_SUFFIX} without {PUBLIC_SUFFIX}")
    private = Ed25519PrivateKey.generate()
    encryption: KeySerializationEncryption = NoEncryption() if not passphrase else BestAvailableEncryption(passphrase)
    data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        # O_EXCL: a key that is overwritten may be the only one a fleet trusts.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise PublishError(f"{path} is there already; a key is never overwritten") from error
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_durably(path.with_suffix(PUBLIC_SUFFIX), public)
    return str(CryptoSigner(private).public_key.keyid)


def load_key(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """The private key in a file. Raises PublishError, OSError."""
    data = path.read_bytes()
    encrypted = b"ENCRYPTED" in data
    if encrypted and not passphrase:
        raise PublishError(f"{path} is encrypted; set {PASSPHRASE_VARIABLE} to its passphrase")
    try:
        return CryptoSigner(load_pem_private_key(data, passphrase if encrypted else None))
    except (ValueError, TypeError) as error:
        raise PublishError(f"{path} holds no private key, or the passphrase is wrong: {error}") from error


def load_public_key(path: Path, passphrase: bytes | None = None) -> Key:
    """The public key in a file that holds a public or a private one. Raises PublishError, OSError."""
    data = path.read_bytes()
    if b"PRIVATE KEY" in data:
        return load_key(path, passphrase).public_key
    try:
        return SSlibKey.from_crypto(load_pem_public_key(data))
    except ValueError as error:
        raise PublishError(f"{path} holds no key: {error}") from error


def load_keys(places: Iterable[Path], passphrase: bytes | None = None) -> Signers:
    """All private keys in these files, and in the `*.pem` files of these folders, by id. Raises PublishError."""
    signers: Signers = {}
    for place in places:
        for path in list_key_files(place):
            if b"PRIVATE KEY" in path.read_bytes():
                signer = load_key(path, passphrase)
                signers[str(signer.public_key.keyid)] = signer
    return signers


def list_key_files(place: Path) -> list[Path]:
    """The file itself, or the key files of a folder, by name. Raises PublishError when there is none."""
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.iterdir() if path.suffix == KEY_SUFFIX and path.is_file())
    if not found:
        raise PublishError(f"{place} holds no key; allowed: a *{KEY_SUFFIX} file, or a folder with such files")
    return found


def read_passphrase() -> bytes | None:
    """The passphrase from the environment; None if there is none."""
    value = os.environ.get(PASSPHRASE_VARIABLE)
    return value.encode() if value else None
