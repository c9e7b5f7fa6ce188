"""A node of a training that acts as ``python3 -m tidemill.train.worker`` does, without TensorFlow.

It takes steps, keeps a checkpoint, writes heartbeats and its record; the chief writes model and history. What it does
stands in ``<shared>/act.json``: ``{"steps": 8, "fail": {"worker": 1, "step": 3, "times": 1, "kind": "kill"}}``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tidemill.bundle import open_bundle
from tidemill.errors import DataError, PlatformError
from tidemill.files import write_json, write_text
from tidemill.jobs.heartbeats import Heartbeat
from tidemill.stage import Stage
from tidemill.train.place import Place

STEP_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bundle", "transformed", "transform-graph", "model", "history", "shared"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    place = Place.read()
    with Stage("train", given.shared / "records" / f"worker-{place.worker}.json") as stage:

        def told(*_: Any) -> None:
            raise PlatformError("train", "was preempted")

        signal.signal(signal.SIGTERM, told)
        act = json.loads((given.shared / "act.json").read_text())
        rows = sum(1 for _ in given.transformed.iterdir())
        checkpoint = given.shared / "checkpoints" / f"worker-{place.worker}"
        begun = int(checkpoint.read_text()) if checkpoint.is_file() else 0
        for step in range(begun + 1, act["steps"] + 1):
            time.sleep(STEP_S)
            _fail(given.shared, act.get("fail"), place.worker, step)
            write_text(checkpoint, str(step))
            Heartbeat(place.worker, step, step, "step", step).write(given.shared)
            print(f"step {step}", flush=True)
        if place.chief:
            problem = open_bundle(given.bundle).problem.name
            write_json(given.model / "model.json", {"name": problem, "inputs": rows, "workers": place.workers})
            write_json(given.history / "history.json", {"steps": act["steps"], "resumed_from_step": begun})
        stage.report({"steps": act["steps"], "resumed_from_step": begun})


def _fail(shared: Path, how: Any, worker: int, step: int) -> None:
    if not how or (worker, step) != (how["worker"], how["step"]):
        return
    times = sum(1 for _ in shared.glob("failed-*"))
    if times < how["times"]:
        (shared / f"failed-{times}").touch()
        if how["kind"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how["kind"] == "platform":
            raise PlatformError("checkpoints", "must be writable", "no space left on device")
        raise DataError("eval split", "has no rows", remedy="give more data")


if __name__ == "__main__":
    main()
