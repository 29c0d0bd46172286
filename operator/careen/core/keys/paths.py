"""The names of keys: how a request's path becomes one, and what lies below what."""

from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

PREFIX = "/v2/keys"
ROOT = "/"


@dataclass(frozen=True, slots=True)
class Moved:
    """The request's path is not in its plain form: 301 to `location`, to which the query is added, also for a PUT."""

    location: str


def clean_path(path: str) -> str:
    """The key that a decoded path names: one leading slash, no trailing one, no empty part, no `.` or `..`."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return ROOT + "/".join(parts)


def find_key(raw: str) -> str | Moved | None:
    """The key that the path of a request line names; None when it is not below `/v2/keys`.

    It is decoded once: `%2F` parts, `%252F` is a literal `%2F` in a name.
    """
    decoded = unquote_to_bytes(raw.encode(errors="surrogateescape")).decode(errors="replace")
    tidy = clean_path(decoded)
    if decoded.endswith("/") and tidy != ROOT:
        tidy += "/"
    if tidy != decoded:
        return Moved(quote(tidy, safe="/$&+,:;=@~"))
    if decoded != PREFIX and not decoded.startswith(PREFIX + "/"):
        return None
    return clean_path(decoded[len(PREFIX) :])


def split_path(path: str) -> list[str]:
    """The parts of a key's path, from the top."""
    return [] if path == ROOT else path[1:].split("/")


def join_path(parent: str, name: str) -> str:
    """The path of a child."""
    return ROOT + name if parent == ROOT else f"{parent}/{name}"


def is_below(path: str, top: str) -> bool:
    """Whether the path lies below the top; nothing lies below itself, and `/ab` does not lie below `/a`."""
    return path.startswith(ROOT if top == ROOT else top + "/") and path != top


def is_hidden_below(path: str, top: str) -> bool:
    """Whether a part of the path, below the top, begins with an underscore."""
    return "/_" in (path if top == ROOT else path[len(top) :])
