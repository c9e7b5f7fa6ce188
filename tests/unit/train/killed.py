"""A training that dies of SIGKILL at its n-th block: run by ``test_train_trainer.py`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys

from tidemill.train.checkpoints import Checkpoints
from tidemill.train.run import run
from tidemill.train.steps import Steps, Taken


def main() -> None:
    arguments = json.loads(sys.argv[1])
    left, train, save = int(sys.argv[2]), Steps.train, Checkpoints.save

    def dying(self: Steps, *arguments: object) -> Taken:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(self, *arguments)

    def whole(self: Checkpoints, *state: object) -> None:
        """Lets no kill come before a checkpoint is written: the step to go on from is what is tested."""
        save(self, *state)
        self.finish()

    Steps.train, Checkpoints.save = dying, whole
    run(**arguments)


if __name__ == "__main__":
    main()
