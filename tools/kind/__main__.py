"""Careen on kind: make the cluster and install (up), that and an update to watch (demo), take it away (down)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .cluster import KindError, follow_update, install_all, remove_all


def main() -> None:
    """Run one command. Exit code 1 with a sentence when something is missing or fails, 130 when a person ended it."""
    parser = argparse.ArgumentParser(prog="kind", description=__doc__)
    parser.add_argument("action", choices=("up", "demo", "down"))
    parser.add_argument("--archive", type=Path, help="OCI archive to load; default: build one, or one by docker build")
    given = parser.parse_args()
    try:
        if given.action == "down":
            remove_all()
            return
        install_all(given.archive)
        if given.action == "demo":
            follow_update()
    except KindError as error:
        sys.exit(f"kind: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
