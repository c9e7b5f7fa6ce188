"""A worker that trains nothing and acts out what it is told, with all else as the real one has it.

Run by a launcher in place of ``tidemill.train.worker``: ``--act <file>`` names JSON with one list of deeds for each
worker and try. The chief saves a checkpoint with every step.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from tidemill.errors import UserCodeError
from tidemill.jobs.job import CHECKPOINTS, RECORDS
from tidemill.stage import Stage
from tidemill.train import heartbeats
from tidemill.train.checkpoints import Checkpoints, Progress
from tidemill.train.heartbeats import Heart
from tidemill.train.place import Place
from tidemill.train.preemption import listening


def main() -> None:
    heartbeats.INTERVAL_S = 0.2  # type: ignore[misc]  # nobody waits for seconds here
    parser = argparse.ArgumentParser()
    parser.add_argument("--act", type=Path)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--parent", type=int)
    given, _ = parser.parse_known_args()
    worker = Place.read().worker
    tries = given.act.with_name(f"tries-{worker}")
    tries.write_text((tries.read_text() if tries.exists() else "") + ".")
    acts = json.loads(given.act.read_text())[worker]
    deeds = acts[min(len(tries.read_text()), len(acts)) - 1]
    checkpoints = Checkpoints(given.shared / CHECKPOINTS / "train", "act", writes=worker == 0)
    heart = Heart(worker)
    with (
        Stage("train", given.shared / RECORDS / f"worker-{worker}.json") as stage,
        listening() as notice,
        heart.beating(given.shared),
    ):
        restored = checkpoints.restore()
        step = restored[0].steps if restored else 0
        for deed in deeds:
            print(f"does {deed}", flush=True)
            if deed == "step":
                heart.at("step")
                step += 1
                heart.stepped(step, 1)
                checkpoints.save(Progress(steps=step), [np.zeros(3)], [])
                checkpoints.finish()
            elif deed == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif deed == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif deed == "train":  # until it is told to end
                with notice.deferred():
                    heart.at("step")
                    while not notice.asked:
                        time.sleep(0.05)
            elif deed == "finish":  # only once it is told to end, which comes too late
                notice.done()
                print("is done", flush=True)
                while not notice.asked:
                    time.sleep(0.05)
            elif deed == "hang":
                with notice.deferred():
                    time.sleep(60)
            elif deed == "blame":
                raise UserCodeError("model.py:3", "raised while it built the model", "ValueError: no")
            elif deed == "defect":
                raise ValueError("a defect")
            elif deed == "leave":
                os._exit(7)
            elif deed == "environment":
                print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(("TF_", "OMP_"))}), flush=True)
        stage.report({"steps": step})
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
