"""What the workers of a training say of themselves, and who of them is stuck or slow.

A worker replaces ``<shared>/heartbeats/worker-<n>`` every few seconds, by a thread that goes on while it computes.
Whoever watches reads them with a clock of its own, so that clocks which differ between machines don't matter.
"""

from __future__ import annotations

import errno
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from tidemill.files import write_text
from tidemill.jobs.job import HEARTBEATS

INTERVAL_S: Final = 2.0
"""How often a worker writes its heartbeat, at least."""

SLOW: Final = 2.0
"""How many times the median a worker's time per step must be for it to be called slow…"""
SLOW_SHARE: Final = 0.1
"""… and what share of a step the difference must be: less isn't worth a warning."""
SLOW_STEPS: Final = 20
"""Steps that a worker must have taken before it is judged."""

Phase = Literal["starting", "input", "step", "evaluation", "ending", "ended"]


@dataclass(frozen=True)
class Heartbeat:
    """One worker's word.

    Attributes:
        worker: its place among all, 0 for the chief.
        count: grows with every heartbeat, so that a worker that is stopped altogether is seen.
        progress: grows with every block of steps and whatever else a worker gets done.
        phase: what it is at: ``input`` while it waits for rows, ``step`` while it computes or waits for the others.
        step: steps taken since the training began.
        steps: steps that the figures below are of: those of this try.
        input_s: seconds that it waited for rows.
        cpu_s: processor seconds; waiting for other workers costs next to none.
        seconds: seconds on the clock.
    """

    worker: int
    count: int = 0
    progress: int = 0
    phase: Phase = "starting"
    step: int = 0
    steps: int = 0
    input_s: float = 0.0
    cpu_s: float = 0.0
    seconds: float = 0.0

    def write(self, shared: Path) -> None:
        write_text(_path(shared, self.worker), json.dumps(asdict(self)))

    @classmethod
    def read(cls, shared: Path, worker: int) -> Heartbeat | None:
        """Returns a worker's last heartbeat, or None if there is none, or none that can be read just now."""
        try:
            return cls(**json.loads(_path(shared, worker).read_text()))
        except OSError as error:
            # ESTALE: another machine replaced the file after it was opened, on NFS and on a mounted bucket.
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return None
            raise


def name_of(worker: int) -> str:
    """Returns what people call a worker."""
    return "chief" if worker == 0 else f"worker-{worker}"


def forget_heartbeats(shared: Path, workers: int) -> None:
    """Removes the heartbeats of an earlier try."""
    for worker in range(workers):
        _path(shared, worker).unlink(missing_ok=True)


@dataclass(frozen=True)
class Hang:
    """Workers that hold all others up.

    Attributes:
        workers: their places.
        seconds: for how long.
        reason: what is known of it, names included.
    """

    workers: tuple[int, ...]
    seconds: float
    reason: str


@dataclass(frozen=True)
class Straggler:
    """A worker that needs much longer for a step than the others.

    Attributes:
        what: ``input`` or ``computing``.
        seconds: per step.
        median: of all workers, seconds per step.
    """

    worker: int
    what: Literal["input", "computing"]
    seconds: float
    median: float

    def __str__(self) -> str:
        return (
            f"{name_of(self.worker)} is a straggler: {1000 * self.seconds:.1f} ms of {self.what} per step, "
            f"the median is {1000 * self.median:.1f} ms"
        )


@dataclass
class _Seen:
    """When a watcher saw a worker's figures change last."""

    beat: Heartbeat
    counted: float
    progressed: float


class Watch:
    """Looks at the heartbeats of one try of a training.

    Args:
        shared: the directory that the workers share with the watcher.
        workers: how many there are.
        timeout_s: how long a worker may get nothing done.
        clock: seconds, monotonic.
    """

    def __init__(
        self, shared: Path, workers: int, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared, self._timeout_s, self._clock = shared, timeout_s, clock
        now = clock()
        self._seen = [_Seen(Heartbeat(worker), now, now) for worker in range(workers)]
        self._told: set[tuple[int, str]] = set()

    @property
    def beats(self) -> list[Heartbeat]:
        """The last known heartbeat of every worker."""
        return [seen.beat for seen in self._seen]

    def look(self) -> Hang | None:
        """Reads the heartbeats. Returns who hangs, if anybody does.

        Where one worker hangs, all the others soon wait for it. Told apart they are by what each is at: one that
        gives no sign of life is to blame first, then one that is not at a step, then whoever took the fewest steps.
        """
        now = self._clock()
        for seen in self._seen:
            beat = Heartbeat.read(self._shared, seen.beat.worker)
            if beat is None:
                continue
            if beat.count != seen.beat.count:
                seen.counted = now
            if beat.progress != seen.beat.progress:
                seen.progressed = now
            seen.beat = beat
        working = [seen for seen in self._seen if seen.beat.phase != "ended"]
        if all(now - seen.progressed < self._timeout_s for seen in working):
            return None
        # Those that wait for one another stop about together, and who hangs need not have been the first.
        late = [seen for seen in working if now - seen.progressed >= self._timeout_s / 2]
        silent = [seen for seen in late if now - seen.counted >= min(self._timeout_s, 3 * INTERVAL_S)]
        apart = [seen for seen in late if seen.beat.phase != "step"]
        behind = [seen for seen in late if seen.beat.step == min(other.beat.step for other in late)]
        blamed = silent or apart or behind
        seconds = max(now - seen.progressed for seen in blamed)
        reason = "; ".join(_told(seen, now, seen in silent) for seen in blamed)
        return Hang(tuple(seen.beat.worker for seen in blamed), seconds, reason)

    def stragglers(self) -> list[Straggler]:
        """Returns the workers that have become stragglers since the last call."""
        beats = [beat for beat in self.beats if beat.steps >= SLOW_STEPS]
        if len(beats) < len(self._seen) or len(beats) < 2:
            return []
        found = [
            *_slow(beats, "input", [beat.input_s / beat.steps for beat in beats]),
            *_slow(beats, "computing", [beat.cpu_s / beat.steps for beat in beats]),
        ]
        new = [straggler for straggler in found if (straggler.worker, straggler.what) not in self._told]
        self._told |= {(straggler.worker, straggler.what) for straggler in new}
        return new


def _slow(
    beats: Sequence[Heartbeat], what: Literal["input", "computing"], per_step: Sequence[float]
) -> list[Straggler]:
    median = statistics.median_low(per_step)  # of two, the faster one is what can be had
    step = statistics.median(beat.seconds / beat.steps for beat in beats)
    return [
        Straggler(beat.worker, what, seconds, median)
        for beat, seconds in zip(beats, per_step, strict=True)
        if seconds > SLOW * median and seconds - median > SLOW_SHARE * step
    ]


def _told(seen: _Seen, now: float, silent: bool) -> str:
    at = {
        "starting": "while it started",
        "input": f"while it waited for the rows of step {seen.beat.step + 1}",
        "step": f"within step {seen.beat.step + 1}",
        "evaluation": f"in the evaluation after step {seen.beat.step}",
        "ending": f"at the end, after step {seen.beat.step}",
        "ended": "after its end",
    }[seen.beat.phase]
    life = ", without a sign of life" if silent else ""
    return f"{name_of(seen.beat.worker)} got nothing done for {now - seen.progressed:.0f} s {at}{life}"


def _path(shared: Path, worker: int) -> Path:
    return shared / HEARTBEATS / f"worker-{worker}"
