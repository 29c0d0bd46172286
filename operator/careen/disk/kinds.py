"""Names for partition types and for the bits of an attribute word, as people and `cgpt` know them. Pure."""

from __future__ import annotations

from uuid import UUID

from careen.disk.types import ROOT_TYPE, USR_TYPE

TYPE_NAMES = {
    USR_TYPE: "coreos-usr",
    ROOT_TYPE: "coreos-resize",
    UUID("c95dc21a-df0e-4340-8d7b-26cbfa9a03e0"): "coreos-reserved",
    UUID("be9067b9-ea49-4f15-b4f6-f36f8c9e1818"): "coreos-root-raid",
    UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"): "linux-data",
    UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"): "efi",
    UUID("21686148-6449-6e6f-744e-656564454649"): "bios",
    UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"): "basic-data",
    UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"): "linux-swap",
    UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "linux-lvm",
    UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "linux-raid",
    UUID("fe3a2a5d-4f32-41a7-b725-accc3285a309"): "chromeos-kernel",
}
"""Partition type → short name. Types that are not here have none."""

REQUIRED_BIT = 0
LEGACY_BOOT_BIT = 2

_BIT_NAMES = {
    REQUIRED_BIT: "required",
    1: "no block I/O",
    LEGACY_BOOT_BIT: "legacy BIOS bootable",
    60: "read-only",
    62: "hidden",
    63: "not mounted automatically",
}


def name_type(type_guid: UUID) -> str:
    """Short name of a partition type; "unknown" for one that nobody here knows."""
    return TYPE_NAMES.get(type_guid, "unknown")


def name_bits(word: int) -> tuple[str, ...]:
    """Names of the bits that are set in an attribute word, without the boot attributes of slots; lowest first."""
    return tuple(name for bit, name in _BIT_NAMES.items() if word >> bit & 1)
