"""Two workers that are killed at random moments, one or the other, some in the middle of a checkpoint.

``tests/benchmarks/kills.py`` has it done as often as one likes, with the moments that one likes.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import TidemillError
from tidemill.jobs.heartbeats import name_of
from tidemill.jobs.job import CHECKPOINTS, TrainingJob
from tidemill.train.checkpoints import newest_step
from tidemill.train.local_launcher import Gang, LocalLauncher
from tidemill.train.preemption import Notice
from tidemill.train.supervisor import Supervisor

WORKERS, ROWS, BATCH = 2, 600, 32
STEPS = -(-ROWS // BATCH)
KINDS_TOLD = {
    "checkpoint": "killed in the middle of a checkpoint",
    "steps": "killed in the middle of an epoch",
    "told": "told to end by SIGTERM",
    "start": "killed while it started",
}
KINDS = tuple(KINDS_TOLD)
KILLS = len(KINDS)


def numbered(_, columns):
    """Gives each row a number of its own, in a feature."""
    rows = len(columns["__label__"])
    return {**columns, "hours-per-week": (np.arange(rows) / rows).astype(np.float32)}


class Launcher(LocalLauncher):
    """Shows the workers of the try that is on."""

    gang: Gang

    def start(self, job: TrainingJob) -> Gang:
        self.gang = super().start(job)
        return self.gang


class Training:
    """A training by two audited workers, in a thread of its own."""

    def __init__(self, inputs, name: str) -> None:
        paths = inputs.arguments(name)
        self.scratch, self.model = paths.pop("checkpoints"), paths["model"]
        self.audit = self.scratch / "audit"
        self.audit.mkdir(parents=True)
        command = (sys.executable, str(Path(__file__).with_name("audited_worker.py")), str(self.audit))
        arguments = [t for key, path in paths.items() for t in (f"--{key.replace('_', '-')}", str(path))]
        job = TrainingJob("train", (*arguments, "--shared", str(self.scratch)), WORKERS, self.scratch)
        self.launcher, self.said = Launcher(command), []
        self.checkpoints = str(self.scratch / CHECKPOINTS / "train")
        self._supervisor = Supervisor(job, self.launcher, self.checkpoints, 600.0, Notice(), self.said.append)
        self._outcome = self._error = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._supervisor.run()
        except TidemillError as error:
            self._error = error

    @property
    def going(self) -> bool:
        return self._thread.is_alive()

    def result(self):
        self._thread.join()
        if self._error:
            print("\n".join(self.said[-200:]))
            raise self._error
        return self._outcome

    def tries(self) -> int:
        return len(list(self.audit.glob("0-*.jsonl")))

    def step(self) -> int:
        return newest_step(self.scratch / CHECKPOINTS / "train") or 0

    def pids(self) -> list[int]:
        return [process.pid for process in self.launcher.gang._processes]


def kill(training: Training, kills: int, chance: random.Random) -> list[str]:
    """Kills a worker, or tells it to end, in each try. Returns who and when."""
    kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
    chance.shuffle(kinds)
    done = []
    killed = 0
    for number, kind in enumerate(kinds):
        wait_for(training, lambda killed=killed: training.tries() > killed)
        killed, before = training.tries(), training.step()
        victim = 0 if kind == "checkpoint" else chance.randrange(WORKERS)
        moment = chance.random()
        if kind == "start":
            time.sleep(8 * moment)
        else:  # with something got done in each try, as else they'd be given up
            wait_for(training, lambda before=before: training.step() > before)
            time.sleep(moment)
        if kind == "checkpoint":
            wait_for(training, lambda: any((training.scratch / CHECKPOINTS / "train").glob("*.partial")))
            time.sleep(0.15 * chance.random())
        os.kill(training.pids()[victim], signal.SIGTERM if kind == "told" else signal.SIGKILL)
        done.append(kind)
        print(f"{number + 1}: {name_of(victim)} {KINDS_TOLD[kind]}, after step {training.step()}", flush=True)
    return done


def wait_for(training: Training, condition) -> None:
    while not condition():
        if not training.going:
            training.result()  # which raises what ended it
            raise AssertionError("the training was over before all kills were done")
        time.sleep(0.005)


def taken(training: Training, resumed: list[int]) -> dict[int, list[int]]:
    """Returns the rows that each step took that counts: of the last try that took it."""
    first = [0, *resumed]
    steps: dict[int, list[int]] = {}
    for worker in range(WORKERS):
        counted: dict[int, list[int]] = {}
        audits = sorted(training.audit.glob(f"{worker}-*.jsonl"))
        for path in audits:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:  # what was taken from here on before was lost with the try that took it
                counted = {step: rows for step, rows in counted.items() if step < line["first"]}
                counted |= {line["first"] + i: rows for i, rows in enumerate(line["rows"])}
        for step, rows in counted.items():
            steps.setdefault(step, []).extend(round(row * ROWS) for row in rows)
    assert first[-1] <= max(steps)
    return steps


@pytest.mark.timeout(3600)  # on a machine that is busy with other things, too
def test_workers_that_are_killed_lose_nothing(make_inputs, request, capsys, monkeypatch):
    """The same steps, weights and loss as without a kill; every row once in every epoch; nothing left behind."""
    kills = request.config.getoption("kills", default=KILLS)
    seed = request.config.getoption("kill_seed", default=None) or random.randrange(10**6)
    epochs = kills + 2
    settings = {
        "model": "linear",  # less to trace: the model doesn't matter
        "max_epochs": epochs,
        "early_stopping_patience": None,
        "batch_size": BATCH,
        "checkpoint_every_steps": 8,
        "steps_per_execution": 2,
        "learning_rate": 0.01,
    }
    monkeypatch.setattr("tidemill.train.local_launcher._SETTLE_S", 0.5)
    inputs = make_inputs(rows=ROWS, training=settings, spoil=numbered)
    with capsys.disabled():
        print(f"\n{kills} kills with seed {seed}", flush=True)
        begun = time.monotonic()
        training, undisturbed = Training(inputs, "killed"), Training(inputs, "undisturbed")
        done = kill(training, kills, random.Random(seed))
        outcome = training.result()
        print(f"{time.monotonic() - begun:.0f} s, resumed from steps {outcome.summary['resumed']}", flush=True)
    expected = undisturbed.result()

    assert len(outcome.restarts) == len(done) == kills, outcome.restarts
    assert expected.restarts == ()
    saved = [int(found[1]) for why in outcome.restarts if (found := re.search(r"with all saved at step (\d+)", why))]
    assert len(saved) == done.count("told")
    assert set(saved) <= set(outcome.summary["resumed"]), "a worker that is told to end loses no step"
    assert outcome.summary["steps"] == expected.summary["steps"] == epochs * STEPS
    assert outcome.summary["eval_loss"] == pytest.approx(expected.summary["eval_loss"], rel=1e-6)
    weights = [ModelManifest.read(each.model).lineage["weights"] for each in (training, undisturbed)]
    assert weights[0] == weights[1]

    steps = taken(training, outcome.summary["resumed"])
    assert sorted(steps) == list(range(epochs * STEPS))
    assert {step: sorted(rows) for step, rows in steps.items()} == {
        step: sorted(rows) for step, rows in taken(undisturbed, []).items()
    }
    for epoch in range(epochs):
        seen = Counter(row for step in range(epoch * STEPS, (epoch + 1) * STEPS) for row in steps[step])
        assert seen == Counter(range(ROWS)), f"epoch {epoch + 1}"

    kept = sorted(path.name.partition(".")[0] for path in (training.scratch / CHECKPOINTS / "train").iterdir())
    assert kept == sorted(p.name.partition(".")[0] for p in (undisturbed.scratch / CHECKPOINTS / "train").iterdir())
    assert sorted(p.name for p in training.model.parent.iterdir()) == ["checkpoints", "history", "model"]
