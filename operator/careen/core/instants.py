"""Instants on the wire: RFC 3339 in UTC with microseconds, as seconds since the epoch inside."""

from datetime import UTC, datetime


def parse_instant(text: str | None) -> float | None:
    """Seconds since the epoch; None for an absent or unreadable time, which then counts as never."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def format_instant(instant: float) -> str:
    """The instant as Kubernetes writes MicroTime."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
