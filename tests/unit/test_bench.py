"""The benchmarks say when a limit is not kept, and end with an exit code that a program can see."""

from __future__ import annotations

import asyncio
import importlib
import random
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from careen.release.build import Build, build_release
from testos.debian import PackageSet
from testos.image import OsImage
from testos.tree import Flavor
from testos.variant import Variant

MIB = 1 << 20


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("bench.__main__")


@pytest.mark.parametrize(
    ("frames", "exact", "unchanged", "peak", "codes"),
    [
        (170, True, 25.0, 96_000_000, (0, 0)),
        (171, True, 25.0, 96_000_001, (1, 1)),
        (100, False, 24.9, 96_000_000, (1, 1)),
    ],
)
def test_a_limit_that_is_not_kept_is_told(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    frames: int,
    exact: bool,
    unchanged: float,
    peak: int,
    codes: tuple[int, int],
) -> None:
    delta = bench.delta.Delta(2000, 1000, 10, frames, exact, 1, 10, 1.0, 200, 100)
    staging = bench.staging.Staging(100.0, unchanged, 50.0, 50.0, {"fetched": peak})
    monkeypatch.setattr(bench.delta, "measure", lambda: delta)
    monkeypatch.setattr(bench.staging, "measure", lambda: staging)
    assert (bench.main(["delta"]), bench.main(["staging"])) == codes
    assert capsys.readouterr().out.count("MISSED") == sum(codes)


@pytest.mark.parametrize(("lost_ms", "missed"), [(20.0, 0), (20.1, 1)])
def test_a_lost_machine_that_costs_too_much_is_told(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost_ms: float,
    missed: int,
) -> None:
    figure = bench.placement.Figure
    found = bench.placement.Placing(figure(400.0, 8000.0, 5000), figure(1.0, 3.0, 0), figure(lost_ms, 250.0, 8), 0)
    monkeypatch.setattr(bench.placement, "measure", lambda *_: found)
    assert bench.main(["placement"]) == missed
    assert capsys.readouterr().out.count("MISSED") == missed


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed")
def test_the_delta_is_measured_by_a_staging_that_fetches_the_new_blocks_alone(
    bench: ModuleType, tmp_path: Path
) -> None:
    rng, built = random.Random(5), []
    shared = rng.randbytes(MIB)
    for version in ("1", "2"):
        tree = tmp_path / f"tree-{version}"
        (tree / "lib").mkdir(parents=True)
        (tree / "lib" / "shared").write_bytes(shared)
        (tree / "lib" / "own").write_bytes(rng.randbytes(MIB // 4))
        folder = tmp_path / version
        build_release(Build(tree, version, "p", "x86_64", filesystem_bytes=8 * MIB, all_root=True), folder)
        built.append(OsImage(Variant(version), PackageSet.BASE, Flavor.FULL, folder))
    sent = asyncio.run(bench.delta._stage(*built, tmp_path))
    wanted, missing = bench.delta._find_missing(*built)
    assert bench.delta._frames_of(built[1], sent.parts) == wanted
    assert MIB // 4 // 4096 <= missing < MIB // 4096
