"""`careen crds`: the kinds and the admission policies that go with them, for `kubectl apply -f -`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def print_crds(
    folder: Annotated[
        Path | None, typer.Argument(help="Write one file a kind into this folder instead of printing all.")
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions and the admission policies that belong to them, as YAML."""
    from careen.api import crd

    crd.main([str(folder)] if folder is not None else [])
