"""Benchmarks: each figure of docs/benchmarks.md is printed by `make bench`."""

import sys
from pathlib import Path

# Some figures are those of the test machines, whose package is no part of ours.
sys.path.append(str(Path(__file__).parent.parent / "tools"))
