"""A worker's signs of life; see `tidemill.jobs.heartbeats` for who reads them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tidemill.jobs.heartbeats import INTERVAL_S, Heartbeat, Phase


class Heart:
    """Says what this process is at. One that nobody listens to costs a few assignments per block of steps."""

    def __init__(self, worker: int = 0) -> None:
        self._beat = Heartbeat(worker)
        self._since = time.monotonic()
        self._begun: tuple[float, float] | None = None

    def at(self, phase: Phase) -> None:
        """Tells that a phase begins: what came before is done."""
        now = time.monotonic()
        if self._begun is None and phase == "input":
            self._begun = now, time.process_time()  # what came before was tracing
        waited = now - self._since if self._beat.phase == "input" else 0.0
        self._since = now
        beat = self._beat
        self._beat = replace(beat, phase=phase, progress=beat.progress + 1, input_s=beat.input_s + waited)

    def stepped(self, step: int, taken: int) -> None:
        """Tells that steps were taken, and that the worker waits for rows again.

        Args:
            step: steps in all.
            taken: steps of this block.
        """
        self.at("input")
        wall, cpu = self._begun or (time.monotonic(), time.process_time())
        self._beat = replace(
            self._beat,
            step=step,
            steps=self._beat.steps + taken,
            seconds=time.monotonic() - wall,
            cpu_s=time.process_time() - cpu,
        )

    @contextmanager
    def beating(self, shared: Path) -> Iterator[None]:
        """Writes heartbeats into the directory that is shared with the watcher, while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._write, args=(shared, ended), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.at("ended")
            ended.set()
            thread.join()

    def _write(self, shared: Path, ended: threading.Event) -> None:
        count, failed, last = 0, False, False
        while not last:
            count, last = count + 1, ended.is_set()
            try:
                replace(self._beat, count=count).write(shared)
                failed = False
            except OSError as error:  # a watcher that sees none says so; the training itself isn't at fault
                if not failed:
                    print(f"train: can't write a heartbeat: {error}", file=sys.stderr, flush=True)
                failed = True
            ended.wait(INTERVAL_S)
