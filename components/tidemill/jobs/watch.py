"""Has a job made, or finds it, and stays with it to its end, whatever happens to the backend or to this process.

The id of the job is kept in ``<shared>/job.json``: a try of the stage that follows a killed one finds the job there and
goes on watching. A job that failed for want of machines is followed by another one, which starts from the newest
checkpoint: so often as `Patience` says, and once more in a try of the stage that found its job there.

**Being told to end.** Ctrl-C cancels the job. SIGTERM has two meanings, and only the backend can tell them apart: the
run was cancelled, or this process's machine is wanted for something else, in which case the job, on machines of its
own, should go on and be found by the next try. The launcher's owner says which, by ``cancelled``; a backend that can't
be asked leaves the job alone, for a wrong cancellation loses work, and the other mistake ends with the job's deadline.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

from tidemill import errors
from tidemill.errors import Interrupted, PlatformError, TidemillError, UserError
from tidemill.files import write_json
from tidemill.jobs import heartbeats
from tidemill.jobs.job import ENDED, HEARTBEATS, RECORDS, Denied, JobStatus, Launcher, TrainingJob

MEMO: Final = "job.json"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_CALM: Final = 3
_LONGEST_S: Final = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long to wait for what.

    Attributes:
        poll_s: seconds between two looks at a job; four times as many while nothing happens.
        submit_s: seconds that the backend may fail to make the job.
        outage_s: seconds that it may fail to say how the job is.
        hang_s: seconds that a worker of a running job may get nothing done; None for ever.
        restarts: jobs that may follow the first one, each starting from the newest checkpoint.
        vain: times in a row that the backend may start all workers of a job again without their getting any further;
            so often as that they may be preempted, and a worker that can't go on is not started again for ever.
    """

    poll_s: float = 5.0
    submit_s: float = 300.0
    outage_s: float = 3600.0
    hang_s: float | None = None
    restarts: int = 0
    vain: int = 5


@dataclass(frozen=True)
class Outcome:
    """A job that ended well.

    Attributes:
        place: where a person finds it.
        attempts: jobs that there were, over all tries of the stage.
        summary: the chief's report, as its record has it.
    """

    id: str
    place: str
    attempts: int
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Memo:
    """What is known of the job outside of this process; written before the job is asked for.

    Attributes:
        attempt: 1 for the first job.
        id: None if it is not known whether the job was made.
    """

    attempt: int = 1
    id: str | None = None

    @classmethod
    def read(cls, shared: Path) -> Memo:
        path = shared / MEMO
        return cls(**json.loads(path.read_text())) if path.is_file() else cls()

    def write(self, shared: Path) -> None:
        write_json(shared / MEMO, asdict(self))


@dataclass
class _Progress:
    """How far the workers of a job come between the times that the backend starts all of them again.

    Attributes:
        step: the highest that a heartbeat told of.
        vain: restarts in a row without a higher step.
        fault: what the workers recorded that is the user's, so that no restart helps. Of workers that end together,
            Kubernetes heeds the one it learns of first, whose exit code may be that of a mere consequence.
    """

    job: TrainingJob
    step: int = 0
    vain: int = 0
    fault: TidemillError | None = None
    _restarts: int | None = None
    _before: int = 0

    def look(self, restarts: int) -> bool:
        """Reads heartbeats and records; returns whether the workers were started again since the last look."""
        beats = (heartbeats.Heartbeat.read(self.job.shared, worker) for worker in range(self.job.workers))
        self.step = max(self.step, *(beat.step for beat in beats if beat is not None), 0)
        recorded = blamed(self.job.shared)
        self.fault = recorded if isinstance(recorded, UserError) else self.fault
        known = restarts if self._restarts is None else self._restarts
        self._restarts = max(known, restarts)  # its pods tell of it, and for a moment there may be none
        if restarts <= known:
            return False
        self.vain = 0 if self.step > self._before else self.vain + restarts - known
        self._before = self.step
        return True


class _Told(BaseException):
    """This process was told to end. No `Exception`, for whoever handles those goes on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Ear:
    """Turns the first SIGTERM or SIGINT into `_Told`, at once or when a block has ended; later ones change nothing.

    A signal mask would not do: it is the thread's, and Google's libraries have others.
    """

    def __init__(self) -> None:
        self._busy = False
        self._first: int | None = None
        self._late: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # Python has signals go to that one
            yield
            return
        before = {each: signal.signal(each, self._hear) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:  # also where the block fails: whoever asks again must not do so instead of ending
            self._busy = False
            if self._late is not None:
                late, self._late = self._late, None
                raise _Told(late)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self._first is not None:
            return
        self._first = number
        if not self._busy:
            raise _Told(number)
        self._late = number


class Watch:
    """A job, from the wish for it to its end.

    Args:
        job: its name is that of the first attempt.
        cancelled: whether this process is told to end because its run is cancelled; asked when SIGTERM comes.
        pause: waits for seconds.
        say: takes a line.
    """

    def __init__(
        self,
        launcher: Launcher,
        job: TrainingJob,
        patience: Patience | None = None,
        cancelled: Callable[[], bool] = lambda: True,
        pause: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self._launcher, self._job, self._patience = launcher, job, patience or Patience()
        self._cancelled, self._pause, self._say = cancelled, pause, say
        self._memo = Memo.read(job.shared)
        self._asked = (job.shared / MEMO).is_file()  # by an earlier try, whose answer may be lost
        self._ended_elsewhere = False  # by somebody who didn't want another one in its place
        self._ear = _Ear()

    def run(self) -> Outcome:
        """Returns how the job ended.

        Raises:
            TidemillError: as the worker raised it that is to blame, with its exit code; `PlatformError` in the
                backend's words if none left a record.
            Interrupted: if the run was cancelled, and with it the job.
            PlatformError: if this process must go while the job stays.
        """
        with self._ear.listening():
            try:
                return self._run()
            except _Told as told:
                raise self._leave(told.number) from None

    def _run(self) -> Outcome:
        left = self._patience.restarts + (self._memo.id is not None)
        while True:
            found = self._memo.id is not None
            id = self._submitted()
            failure = self._followed(id)
            if failure is None:
                summary = _records(self._job.shared).get(0, {}).get("summary", {})
                return Outcome(id, self._launcher.place(id), self._memo.attempt, summary)
            if not failure.retryable or left == 0 or (self._ended_elsewhere and not found):
                raise failure
            left -= 1
            self._say(f"{failure}\nanother job follows, from the newest checkpoint")
            self._memo = Memo(self._memo.attempt + 1)

    def _submitted(self) -> str:
        """Returns the id of this attempt's job, which is there from then on."""
        if self._memo.id is not None:
            self._say(f"found job {self._memo.id}: {self._launcher.place(self._memo.id)}")
            return self._memo.id
        self._memo.write(self._job.shared)
        for earlier in (RECORDS, HEARTBEATS):  # they say nothing of this attempt
            shutil.rmtree(self._job.shared / earlier, ignore_errors=True)
        id = self._patiently(self._patience.submit_s, self._submit)
        self._say(f"made job {id}: {self._launcher.place(id)}")
        return id

    def _submit(self) -> str:
        attempt = self._memo.attempt
        job = self._job if attempt == 1 else replace(self._job, name=f"{self._job.name}-{attempt}")
        self._asked = True
        with self._ear.undisturbed():  # a job that nobody knows of can't be cancelled
            id = self._launcher.submit(job)
            self._memo = Memo(attempt, id)
            self._memo.write(job.shared)
        return id

    def _followed(self, id: str) -> TidemillError | None:
        """Follows a job to its end, telling what it prints and why it waits; returns its failure."""
        last, idle, progress = JobStatus("pending"), 0, _Progress(self._job)
        beats: heartbeats.Watch | None = None
        while True:
            status = self._patiently(self._patience.outage_s, lambda: self._launcher.status(id))
            lines = 0 if status.state == "pending" else self._tell_logs(id)
            if (status.state, status.detail) != (last.state, last.detail):
                self._say(f"job {id}: {status.state}{f': {status.detail}' if status.detail else ''}")
            if status.state == "succeeded":
                return None
            if status.state in ENDED:
                self._ended_elsewhere = status.state == "cancelled"
                return self._failure(id, status)
            if progress.look(status.restarts) and (failure := self._in_vain(id, progress)) is not None:
                self._say(f"{failure}\ncancelling job {id}")
                self._end(id)
                return failure
            # A job that waits for machines, again perhaps, gets nothing done and hasn't hung.
            beats = (beats or self._beats()) if status.state == "running" else None
            if beats is not None and (hung := self._hung(beats)) is not None:
                self._say(f"{hung}\ncancelling job {id}")
                self._end(id)
                return hung
            idle = 0 if lines or status != last else min(idle + 1, _CALM)
            last = status
            self._pause(self._patience.poll_s * (1 + idle))

    def _tell_logs(self, id: str) -> int:
        count = 0
        try:
            for line in self._launcher.logs(id):
                self._say(line)
                count += 1
        except PlatformError as error:  # what the workers print is of use, but the job goes on without it
            self._say(f"no logs for now: {error}")
        return count

    def _in_vain(self, id: str, progress: _Progress) -> TidemillError | None:
        """Returns why workers that the backend has started again should not have been."""
        if progress.fault is not None:
            return progress.fault
        self._say(f"job {id}: its workers were started again after step {progress.step}")
        if progress.vain < self._patience.vain:
            return None
        recorded = blamed(self._job.shared)
        got = f"{progress.vain} restarts in a row, none beyond step {progress.step}"
        cause = f"{got}; {recorded.where}: {recorded.expected}" if recorded is not None else got
        remedy = "the workers' last lines say why they ended"
        return PlatformError(f"job {id}", "must get further between the restarts of its workers", cause, remedy)

    def _beats(self) -> heartbeats.Watch | None:
        limit = self._patience.hang_s
        return heartbeats.Watch(self._job.shared, self._job.workers, limit) if limit is not None else None

    def _hung(self, beats: heartbeats.Watch) -> PlatformError | None:
        hang = beats.look()
        for straggler in beats.stragglers():
            self._say(str(straggler))
        if hang is None:
            return None
        remedy = "its machine may be at fault; `training.hang_timeout_s` is how long a worker may take"
        return PlatformError(f"job {self._memo.id}", "every worker must get something done", hang.reason, remedy)

    def _end(self, id: str) -> None:
        """Cancels a job and awaits its end: its workers must not write beside those of the next one."""
        self._patiently(self._patience.submit_s, lambda: self._launcher.cancel(id))
        begun = time.monotonic()
        while self._patiently(self._patience.outage_s, lambda: self._launcher.status(id)).state not in ENDED:
            if time.monotonic() > begun + self._patience.submit_s:
                raise PlatformError(f"job {id}", f"must end within {self._patience.submit_s:.0f} s of its cancellation")
            self._pause(self._patience.poll_s)

    def _failure(self, id: str, status: JobStatus) -> TidemillError:
        """Returns why a job ended: what a worker recorded, and what the backend says where that isn't the cause.

        A worker that is killed for want of memory records nothing, and those that then wait for it in vain do.
        """
        recorded = blamed(self._job.shared)
        if recorded is None:
            how = "was cancelled by somebody else" if status.state == "cancelled" else "failed"
            return PlatformError(f"job {id}", how, status.detail, f"see {self._launcher.place(id)}")
        if not recorded.retryable or status.detail is None:
            return recorded
        got = f"{recorded.got}; {status.detail}" if recorded.got else status.detail
        return type(recorded)(recorded.where, recorded.expected, got, recorded.remedy)

    def _leave(self, number: int) -> TidemillError:
        """Ends the job if that is meant, and returns what this process ends with."""
        name = signal.Signals(number).name
        if number != signal.SIGINT and not self._cancelled():
            return PlatformError(
                f"job {self._job.name}", f"goes on; its watcher was ended ({name})", remedy="try again"
            )
        if self._memo.id is None and not self._asked:
            return Interrupted(f"job {self._job.name}", "was cancelled with its run before it was made")
        id = self._memo.id or self._submit()  # whether it was made is not known; to be cancelled it must be
        self._launcher.cancel(id)  # before a word: who reads them may be gone, and this process is soon killed
        return Interrupted(f"job {id}", f"was cancelled with its run ({name})")

    def _patiently(self, patience_s: float, ask: Callable[[], T]) -> T:
        """Asks until there is an answer, or for so long in vain."""
        begun, wait = time.monotonic(), self._patience.poll_s / 4
        while True:
            try:
                return ask()
            except PlatformError as error:
                denied = isinstance(error, Denied) and self._memo.id is None  # a job that is there is worth the wait
                if denied or time.monotonic() + wait > begun + patience_s:
                    raise
                self._say(f"asking again in {wait:.1f} s: {error}")
            self._pause(wait)
            wait = min(wait * 2, _LONGEST_S)


def blamed(shared: Path) -> TidemillError | None:
    """Returns the error of the worker that is to blame, as it raised it; None if no worker recorded one.

    When one worker fails the others can't go on and fail as well, in whatever way TensorFlow then finds; so an error
    that is the user's fault counts before the platform's, of which the latest counts, and that before what looks like a
    defect: a new start mends what a lost worker brought about, and meets a defect again, which is told beside.
    """
    failed = [(n, record["error"]) for n, record in _records(shared).items() if record.get("error")]
    if not failed:
        return None
    rank = {UserError.exit_code: 0, PlatformError.exit_code: 1}
    worker, error = min(failed, key=lambda item: rank.get(item[1]["exit_code"], 2))
    if error["exit_code"] == PlatformError.exit_code:
        defects = [
            f"{heartbeats.name_of(n)}: {e['got']}" for n, e in failed if e["exit_code"] == TidemillError.exit_code
        ]
        error = {**error, "got": "; ".join([*([error["got"]] if error["got"] else []), *defects]) or None}
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, TidemillError)]
    same = [k for k in kinds if k.__name__ == error["type"] and k.exit_code == error["exit_code"]]
    like = [k for k in (UserError, PlatformError, TidemillError) if k.exit_code == error["exit_code"]]
    kind = (same or like or [TidemillError])[0]
    return kind(f"{heartbeats.name_of(worker)}: {error['where']}", error["expected"], error["got"], error["remedy"])


def _records(shared: Path) -> dict[int, dict[str, Any]]:
    """Returns the workers' records by number, the one that was written last first."""
    paths = sorted((shared / RECORDS).glob("worker-*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    return {int(path.stem.rpartition("-")[2]): json.loads(path.read_text()) for path in paths}
