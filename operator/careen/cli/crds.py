"""`careen crds`: the kinds and the admission policies that go with them, for `kubectl apply -f -`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from careen.cli.target import Namespace


def print_crds(
    folder: Annotated[
        Path | None, typer.Argument(help="Write one file a kind into this folder instead of printing all.")
    ] = None,
    namespace: Namespace = None,
) -> None:
    """Print the CustomResourceDefinitions and the admission policies that belong to them, as YAML.

    The policies name the accounts of the operator and the agents in the namespace of the install.
    """
    from careen.api import crd
    from careen.api.meta import NAMESPACE

    crd.write_documents(folder, namespace or NAMESPACE)
