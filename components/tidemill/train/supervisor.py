"""Stays with local workers until the training is done: those that die or hang start again from where it stands."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidemill.errors import PlatformError, TidemillError, UserError
from tidemill.jobs.heartbeats import Watch, forget_heartbeats, name_of
from tidemill.jobs.job import RECORDS, TrainingJob
from tidemill.jobs.watch import blamed
from tidemill.train.checkpoints import newest_step
from tidemill.train.local_launcher import Gang, LocalLauncher, describe
from tidemill.train.preemption import Notice

TRIES: Final = 5
"""How often in a row workers may die without a new checkpoint: what kills them then would go on doing so."""
_POLL_S: Final = 0.1
_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class Outcome:
    """A training that ended well.

    Attributes:
        summary: the chief's report.
        restarts: why the workers were started again, each time.
    """

    summary: Mapping[str, Any]
    restarts: tuple[str, ...]


class Supervisor:
    """Sees a training by local workers through.

    Args:
        job: what they are to do.
        launcher: starts them.
        checkpoints: path or address of the training's, from which is seen whether it gets on.
        hang_timeout_s: how long a worker may get nothing done.
        notice: whether this process is to end.
        say: takes a line for the log.
    """

    def __init__(
        self,
        job: TrainingJob,
        launcher: LocalLauncher,
        checkpoints: str,
        hang_timeout_s: float,
        notice: Notice,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self._job, self._launcher, self._notice, self._say = job, launcher, notice, say
        self._checkpoints, self._hang_timeout_s = checkpoints, hang_timeout_s

    def run(self) -> Outcome:
        """Returns when the training is done, also if this process was told to end and the workers finished first.

        Raises:
            Preempted: if this process is told to end before that; the workers have saved and ended.
            UserError: as the worker raised it.
            PlatformError: if they die time and again without getting on.
        """
        restarts: list[str] = []
        step, fruitless = self._step(), 0
        with self._notice.deferred():
            while (failure := self._try()) is not None:
                before, step = step, self._step()
                fruitless = 1 if (step or 0) > (before or 0) else fruitless + 1
                if not failure.retryable:
                    raise failure
                if fruitless == TRIES:
                    remedy = "see the workers' last lines above; the system kills what takes too much memory"
                    got = f"{failure.where}: {failure.expected}{f' ({failure.got})' if failure.got else ''}"
                    where = f"the last {TRIES} tries"
                    raise PlatformError(where, f"must get beyond step {step or 0}", got, remedy) from failure
                restarts.append(f"{failure.where}: {failure.expected}{f' (got {failure.got})' if failure.got else ''}")
                self._say(f"train: restart {len(restarts)}, from step {step or 0}: {restarts[-1]}")
            self._notice.done()
        record = json.loads((self._job.shared / RECORDS / "worker-0.json").read_text())
        return Outcome(record["summary"], tuple(restarts))

    def _step(self) -> int | None:
        return newest_step(self._checkpoints)

    def _try(self) -> TidemillError | None:
        """Runs the workers once. Returns what ended them too early."""
        shutil.rmtree(self._job.shared / RECORDS, ignore_errors=True)
        forget_heartbeats(self._job.shared, self._job.workers)
        gang = self._launcher.start(self._job)
        try:
            hung = self._follow(gang)
        finally:
            gang.kill()
            self._tell(gang)
        if self._notice.asked and any(gang.ended.values()):
            raise self._notice.preempted(self._step())
        return hung or self._failure(gang)

    def _follow(self, gang: Gang) -> PlatformError | None:
        """Looks after the workers until they have ended, or some hang: that is returned."""
        watch = Watch(self._job.shared, self._job.workers, self._hang_timeout_s)
        looked = time.monotonic()
        while not gang.poll():
            self._tell(gang)
            if self._notice.asked and not gang.cancelled:
                self._say(f"train: told to end; the workers have {self._notice.grace_s:.0f} s to save")
                gang.end(self._notice.grace_s)
            if time.monotonic() - looked >= _LOOK_S:
                looked = time.monotonic()
                if hang := watch.look():
                    names = ", ".join(name_of(worker) for worker in hang.workers)
                    limit = f"must get something done within {self._hang_timeout_s:g} s (training.hang_timeout_s)"
                    return PlatformError(names, limit, hang.reason)
                for straggler in watch.stragglers():
                    self._say(f"train: warning: {straggler}")
            time.sleep(_POLL_S)
        return None

    def _tell(self, gang: Gang) -> None:
        for line in gang.lines():
            self._say(line)

    def _failure(self, gang: Gang) -> TidemillError | None:
        """Returns why the workers ended, None if all is done.

        What the first to end says counts: the others fail for want of it, in ways of their own.
        """
        first = next(((worker, code) for worker, code in gang.ended.items() if code), None)
        if first is None:
            return None
        recorded = blamed(self._job.shared)
        if recorded is not None and (first[1] > 0 or recorded.exit_code == UserError.exit_code):
            return recorded
        remedy = "see its last lines above" if first[1] < 0 else "it left no record: see its last lines above"
        name = name_of(first[0])
        if first[1] < 0 or first[1] == PlatformError.exit_code:
            return PlatformError(name, "must live as long as the training", describe(gang), remedy)
        return TidemillError(name, "must say why it ends", describe(gang), remedy)
