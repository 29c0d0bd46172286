"""What a person sees while the control plane is built."""

import sys
import time

from rich.console import Console
from rich.status import Status

from careen.sandbox.binaries import BuildProgress

_LINE_SECONDS = 15.0


class BuildPrinter:
    """Shows builds on standard error: one moving line in a terminal, else a line every 15 seconds."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status: Status | None = None
        self._printed = 0.0

    def __call__(self, progress: BuildProgress) -> None:
        """Show one report of ensure_binaries."""
        text = f"building {progress.name}: {progress.packages} packages, {progress.seconds:.0f} s"
        if progress.done:
            if self._status is not None:
                self._status.stop()
                self._status = None
            self._print(f"{text}, done")
        elif self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(f"{text} (once; later starts take it from the cache)")
        elif progress.packages == 0 or time.monotonic() - self._printed >= _LINE_SECONDS:
            self._print(text)

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        print(text, file=sys.stderr, flush=True)


print_progress = BuildPrinter()
