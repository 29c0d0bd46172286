"""Whether a trusted release may be written to this machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from careen.agent.record import Fault
from careen.api.meta import PROTOCOL
from careen.release.bootblock import BOOT_BLOCK_BYTES
from careen.release.manifest import Image, ReleaseDocument
from careen.release.versions import compare_versions

PROTOCOL_SKEW = 1
"""How far the protocol of the agent in a release may be from ours: its journal and its operator must be understood."""


@dataclass(frozen=True)
class Running:
    """What a release has to fit. None: not known."""

    architecture: str
    """As `uname -m` says."""
    room: int
    """Bytes in the passive slot."""
    version: str | None = None
    """Version of the OS that runs."""
    product: str | None = None
    """Product of the OS that runs."""
    state_version: int | None = None
    """Version of the data below /var that the OS that runs writes."""


def admit_release(document: ReleaseDocument, running: Running, *, allow_downgrade: bool) -> Image | Fault:
    """The image for this machine, or why the release may not be written here."""
    image = document.images.get(running.architecture)
    if image is None:
        there = ", ".join(sorted(document.images))
        return Fault("Refused", f"release {document.version} is for {there}; this machine is {running.architecture}")
    if sentence := _refuse(document, running, allow_downgrade):
        return Fault("Refused", f"release {document.version} {sentence}")
    if (needed := image.size + BOOT_BLOCK_BYTES) > running.room:
        return Fault("Size", f"the image and its boot block need {needed} bytes; the slot has {running.room}")
    return image


def _refuse(document: ReleaseDocument, running: Running, allow_downgrade: bool) -> str | None:
    if running.product not in (None, document.product):
        return f"is of the product {document.product}; this machine runs {running.product}"
    if abs(document.agent_protocol - PROTOCOL) > PROTOCOL_SKEW:
        low, high = max(1, PROTOCOL - PROTOCOL_SKEW), PROTOCOL + PROTOCOL_SKEW
        return f"has an agent of protocol {document.agent_protocol}; allowed: {low} to {high}"
    if running.state_version is not None and document.state_version < running.state_version:
        return f"reads data of version {document.state_version}; the data here have version {running.state_version}"
    return _refuse_version(document, running, allow_downgrade)


def _refuse_version(document: ReleaseDocument, running: Running, allow_downgrade: bool) -> str | None:
    floor = document.min_version
    if running.version is None:
        # A machine whose first release nobody recorded must not take what another would refuse.
        if floor is not None:
            return f"can be reached from {floor} on; which version runs here is not known"
        if not allow_downgrade:
            return "may be older than what runs here, which is not known; the policy's allowDowngrade permits it"
        return None
    if floor is not None and compare_versions(running.version, floor) < 0:
        return f"can be reached from {floor} on; this machine runs {running.version}"
    if not allow_downgrade and compare_versions(document.version, running.version) < 0:
        return f"is older than {running.version}, which runs here; the policy's allowDowngrade permits it"
    return None
