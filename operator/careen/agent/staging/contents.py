"""What is in the slots: releases that are trusted, admitted, written, read back, and recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import aiohttp

from careen.agent.actions import StageImage, VerifySlot
from careen.agent.record import Fault, Moved
from careen.agent.records import SlotRecord, load_records, save_records
from careen.agent.threads import in_thread
from careen.disk.types import DiskError, SlotName
from careen.release.bootblock import BootBlock
from careen.release.durable import PRIVATE, write_durably
from careen.release.errors import ReleaseInvalidError, ReleaseMissingError, ReleaseTransferError, TrustError
from careen.release.manifest import Image, ReleaseDocument, digest_document, parse_document, release_path

from .admission import Running, admit_release
from .fault import StageError
from .kept import KeptIndex
from .media import Source, Target
from .slot import check_slot, read_boot_block
from .stage import Wanted, stage_release
from .transfer import Deadlines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Admitted:
    """A release that may be written here: signed, current, and for this machine. data: the document's bytes."""

    document: ReleaseDocument
    digest: str
    image: Image
    boot: BootBlock
    data: bytes


@dataclass(frozen=True)
class Booted:
    """The OS that runs."""

    name: SlotName
    slot: Source
    """Its slot, open for reading."""
    version: str | None = None
    """What it says of itself; used while its signed document is not known."""
    product: str | None = None
    """What it says of itself; used while its signed document is not known."""
    verity_root: str | None = None
    """Root hash, hex, of the dm-verity device that it runs from; None if it does not, or nobody knows."""


@dataclass(frozen=True)
class Known:
    """What is known of one slot."""

    record: SlotRecord | None = None
    """What was verified there after the last write; durable."""
    checked: str | None = None
    """Purpose of the last read-back in this process that found it."""
    refuted: str | None = None
    """Digest that a read-back in this process did not find."""


class Contents:
    """The releases in a machine's slots; one object a machine. Everything durable of it lies in the state folder.

    state: folder for slots.json, releases/ (documents of what is in the slots), tuf/ (signed metadata) and index.zst
    (of the release that is being staged).
    trust_root: file with the root.json that all trust begins with. http: a client to share; default one of its own
    between `open` and `close`. now: the time against which signatures expire; default the system's clock.
    """

    def __init__(
        self,
        state: Path,
        trust_root: Path,
        architecture: str,
        *,
        http: aiohttp.ClientSession | None = None,
        deadlines: Deadlines | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._records = state / "slots.json"
        self._documents = state / "releases"
        self._metadata = state / "tuf"
        self._kept = KeptIndex(state / "index.zst")
        self._trust_root = trust_root
        self._architecture = architecture
        self._http = http
        self._own_http: aiohttp.ClientSession | None = None
        self._deadlines = deadlines or Deadlines()
        self._now = now
        self._checked: dict[SlotName, str] = {}
        self._refuted: dict[SlotName, str] = {}
        self._unsigned: set[str] = set()
        self._claims: dict[SlotName, BootBlock | None] = {}

    async def open(self) -> None:
        """Get ready to fetch."""
        if self._http is None:
            # Proxies come from the environment, as for the signed metadata.
            self._http = self._own_http = aiohttp.ClientSession(trust_env=True)

    async def close(self) -> None:
        """Close what `open` has made."""
        if self._own_http is not None:
            await self._own_http.close()
            self._http = self._own_http = None

    def look(self) -> dict[SlotName, Known]:
        """What is known of each slot. Raises OSError."""
        records = load_records(self._records)
        return {name: Known(records.get(name), self._checked.get(name), self._refuted.get(name)) for name in SlotName}

    def read_claim(self, name: SlotName, open_slot: Callable[[], AbstractContextManager[Source]]) -> str | None:
        """The version that a slot's boot block names, for people: nobody has proved it. None if it names none.

        Read once, and again after a staging: it is asked for with every step. A slot that can't be read is no reason
        not to see the machine.
        """
        if name not in self._claims:
            self._claims[name] = None
            try:
                with open_slot() as slot:
                    self._claims[name] = read_boot_block(slot)
            except (DiskError, OSError) as error:
                logger.warning("what slot %s says of itself can't be read: %s", name, error)
        claim = self._claims[name]
        return claim.version if claim and claim.digest != self._refuted.get(name) else None

    def find_document(self, digest: str) -> ReleaseDocument | None:
        """The document of a release that is in a slot, from the state folder; None if it is not there or damaged."""
        data = self._read_document(digest)
        return parse_document(data) if data is not None else None

    def forget(self, slot: SlotName) -> None:
        """Drop durably what is known of a slot. Raises OSError."""
        self._checked.pop(slot, None)
        records = load_records(self._records)
        if records.pop(slot, None) is not None:
            save_records(self._records, records)

    async def admit(self, image: StageImage, booted: Booted, room: int) -> Admitted:
        """Trust a release and see that it may be written here; nothing of the disk is written.

        room: bytes in the passive slot. Raises StageError: Trust, Transfer, Refused, Size; Disk when the state folder
        can't be written.
        """
        data = await in_thread(self._fetch_document, image)
        document = parse_document(data)
        found = await in_thread(self._fit, document, image, booted, room)
        return Admitted(document, image.digest, found, self._boot_block(document, image.digest), data)

    async def stage(
        self,
        image: StageImage,
        admitted: Admitted,
        target: Target,
        booted: Source | None,
        on_progress: Callable[[Moved], None],
    ) -> None:
        """Write an admitted release to the passive slot, and record it. Raises StageError, OSError.

        booted: the slot that runs; its blocks are copied where they fit. The slot must have been given up before.
        """
        if self._http is None:
            raise RuntimeError("the contents are not open")
        await in_thread(self.forget, image.slot)
        self._claims[image.slot] = None
        size = admitted.image.size
        wanted = Wanted(
            admitted.image,
            admitted.boot,
            (image.repository, *image.mirrors),
            bytes_per_second=image.bytes_per_second,
            deadlines=self._deadlines,
            kept=self._kept,
        )
        try:
            await stage_release(
                self._http, wanted, target, booted, lambda moved: on_progress(replace(moved, size=size))
            )
            await in_thread(self._record, image.slot, admitted, "stage")
        finally:
            self._claims.pop(image.slot, None)
        await in_thread(self._kept.drop)

    async def verify(self, check: VerifySlot, slot: Source, booted: Booted) -> bool:
        """Read back a slot and keep what is known of it in step; whether it holds the release asked for.

        slot: open for reading. Raises StageError when the release's document is nowhere to be had, or when the slot is
        the passive one and its release may not be booted here; DiskError, OSError.
        """
        boot = await in_thread(read_boot_block, slot)
        if boot is None or boot.digest != check.digest:
            await in_thread(self._refute, check)
            return False
        data = await in_thread(self._read_document, check.digest)
        if data is None:
            data = await in_thread(self._fetch_document, check)
        document = parse_document(data)
        image = document.images.get(self._architecture)
        if image is None or boot != self._boot_block(document, check.digest):
            await in_thread(self._refute, check)
            return False
        if check.slot is not booted.name:
            # First, since it is quick: what nobody may boot need not be read.
            await in_thread(self._fit, document, check, booted, slot.size)
        if fault := await in_thread(check_slot, slot, image):
            logger.warning("slot %s does not hold %s: %s", check.slot, check.version, fault)
            await in_thread(self._refute, check)
            return False
        await in_thread(self._record, check.slot, Admitted(document, check.digest, image, boot, data), check.purpose)
        return True

    def _boot_block(self, document: ReleaseDocument, digest: str) -> BootBlock:
        return BootBlock.of(document, digest, self._architecture)

    def _fit(self, document: ReleaseDocument, wanted: StageImage | VerifySlot, booted: Booted, room: int) -> Image:
        """The image for this machine, if the release may be booted here. Raises StageError."""
        running = self._describe_running(wanted.repository, booted, room)
        found = admit_release(document, running, allow_downgrade=wanted.allow_downgrade)
        if isinstance(found, Fault):
            raise StageError(found.class_, found.message)
        return found

    def _describe_running(self, repository: str, booted: Booted, room: int) -> Running:
        record = load_records(self._records).get(booted.name)
        document = self.find_document(record.digest) if record else None
        if document is None:
            document = self._identify(repository, booted)
        if document is None:
            return Running(self._architecture, room, booted.version, booted.product)
        return Running(self._architecture, room, document.version, document.product, document.state_version)

    def _identify(self, repository: str, booted: Booted) -> ReleaseDocument | None:
        """Find out and record which release runs, on a machine that an installer wrote: None if that can't be proved.

        Raises StageError Transfer when the repository does not answer, so that nothing is judged by half of the facts.
        """
        try:
            boot = read_boot_block(booted.slot)
        except DiskError as error:
            logger.warning("what runs here is not known: %s", error)
            return None
        if boot is None or boot.digest in (self._refuted.get(booted.name), *self._unsigned):
            return None
        data = self._read_document(boot.digest) or self._find_signed(repository, boot)
        if data is None:
            return None
        document = parse_document(data)
        image = document.images.get(self._architecture)
        if image is None or boot != self._boot_block(document, boot.digest) or not _runs(booted, image):
            logger.warning("slot %s runs, but it is not the release %s that it says", booted.name, boot.version)
            self._refuted[booted.name] = boot.digest
            return None
        self._record(booted.name, Admitted(document, boot.digest, image, boot, data), "booted")
        return document

    def _find_signed(self, repository: str, boot: BootBlock) -> bytes | None:
        """The signed document of what a boot block names; None if the repository has no such release."""
        if not repository:
            return None
        try:
            return self._read_signed(repository, release_path(boot.version), boot.digest)
        except (TrustError, ReleaseMissingError) as error:
            logger.warning("what runs here is not known: %s", error)
            self._unsigned.add(boot.digest)
            return None
        except ReleaseTransferError as error:
            raise StageError("Transfer", str(error)) from error

    def _fetch_document(self, wanted: StageImage | VerifySlot) -> bytes:
        """The signed document at the repository. Raises StageError."""
        try:
            return self._read_signed(wanted.repository, wanted.path, wanted.digest)
        except TrustError as error:
            raise StageError("Trust", str(error)) from error
        except (ReleaseTransferError, ReleaseMissingError) as error:
            raise StageError("Transfer", str(error)) from error

    def _read_signed(self, repository: str, path: str, digest: str) -> bytes:
        """A signed document. Raises what ReleaseClient raises, and StageError for this machine's own files."""
        try:
            root = self._trust_root.read_bytes()
        except OSError as error:
            raise StageError("Trust", f"the trust root {self._trust_root} can't be read: {error.strerror}") from error
        # Here and not above: an agent that stages nothing would carry 10 MB for it.
        from careen.release.client import ReleaseClient

        seconds = self._deadlines.connect + self._deadlines.read
        client = ReleaseClient(self._metadata, root, self._now, request_seconds=seconds)
        try:
            return client.read(repository, path, digest).data
        except OSError as error:
            raise StageError("Disk", f"the metadata below {self._metadata} can't be kept: {error}") from error

    def _document_path(self, digest: str) -> Path:
        return self._documents / f"{digest.removeprefix('sha256:')}.json"

    def _read_document(self, digest: str) -> bytes | None:
        try:
            data = self._document_path(digest).read_bytes()
            # The digest comes from the order or the record: with it, the file needs no other proof.
            if digest_document(data) != digest:
                raise ReleaseInvalidError("its hash is another one")
            parse_document(data)
        except FileNotFoundError:
            return None
        except ReleaseInvalidError as error:
            logger.warning("the document %s is dropped: %s", self._document_path(digest), error)
            return None
        return data

    def _record(self, slot: SlotName, held: Admitted, purpose: str) -> None:
        path = self._document_path(held.digest)
        if self._read_document(held.digest) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, held.data, mode=PRIVATE)
        records = load_records(self._records)
        record = SlotRecord(held.digest, held.image.size, held.document.version)
        if records.get(slot) != record:
            records[slot] = record
            save_records(self._records, records)
        kept = {self._document_path(entry.digest).name for entry in records.values()}
        for other in self._documents.glob("*.json"):
            if other.name not in kept:
                other.unlink(missing_ok=True)
        self._checked[slot] = purpose
        self._refuted.pop(slot, None)

    def _refute(self, check: VerifySlot) -> None:
        known = load_records(self._records).get(check.slot)
        if known is not None and known.digest == check.digest:
            self.forget(check.slot)
        self._refuted[check.slot] = check.digest


def _runs(booted: Booted, image: Image) -> bool:
    """Whether the running slot holds this image. Raises DiskError."""
    if booted.verity_root is not None:
        # The kernel checks each block against it as long as the machine runs.
        return booted.verity_root == image.verity_root
    return check_slot(booted.slot, image) is None
