"""What can go wrong with releases. Every message is a sentence for people: what is wrong, with which file, and why."""

from __future__ import annotations


class ReleaseError(Exception):
    """Base of this room's errors."""


class TrustError(ReleaseError):
    """Keys, signatures, expiry, versions or hashes are not right: nothing of the answer may be used."""


class ReleaseTransferError(ReleaseError):
    """The repository could not be read: no connection, an error status, too slow. Trying again may help."""


class ReleaseMissingError(ReleaseError):
    """The repository is in order, and what was asked for is not in it. The message names what is there."""


class ReleaseInvalidError(ReleaseError, ValueError):
    """A document or boot block that can't be used; the message names the field, its value, and what is allowed."""


class VerityError(ReleaseError, ValueError):
    """A hash tree that does not belong to its root hash, or is none."""


class BuildError(ReleaseError):
    """An image that can't be built from what was given."""


class PublishError(ReleaseError):
    """A repository that can't be changed as asked: a missing key, an existing version, a damaged folder."""
