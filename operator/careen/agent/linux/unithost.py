"""Where a real machine has its units: the folder of the agent that goes with the boot, and systemd over D-Bus."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from careen.agent.units.bus import SOCKET, BusSystemd
from careen.agent.units.shelf import FILES, FolderShelf
from careen.agent.units.systemd import UnitHost
from careen.agent.units.unwilling import UnwillingSystemd

from .root import RUN, Root


def open_units(root: Root, *, enabled: bool) -> UnitHost:
    """The machine's units. enabled: whether orders are obeyed; if not, they are answered with that."""
    shelf = FolderShelf(root.at(RUN))
    if not enabled:
        return UnitHost(shelf, UnwillingSystemd())
    address = f"unix:path={quote(str(root.at(SOCKET)), safe='/-_.*')}"
    # systemd sees the files where they are on the machine, which is not where an agent in a container sees them.
    return UnitHost(shelf, BusSystemd(address, Path(RUN) / FILES, root=root.path))
