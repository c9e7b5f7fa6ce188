"""One task's process: it imports what the task needs, waits for the task, runs it once, and ends.

Started ahead of time, it imports while an earlier task still works. It never runs two tasks, so nothing that
one task does to its process can reach another. Its standard input is a pipe from the runner: one line of JSON
is the task; the pipe's end means that the runner is gone, and then the task must not go on alone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from tidemill.errors import PlatformError, classify


def main() -> None:
    """Runs the task that standard input brings; ``sys.argv`` names the modules to import before."""
    started = time.monotonic()
    os.environ["_KFP_RUNTIME"] = "true"  # kfp's own sign to import no more than a task needs
    executor = importlib.import_module("kfp.dsl.executor_main")
    for module in sys.argv[1:]:
        importlib.import_module(module)
    preload = time.monotonic() - started
    line = sys.stdin.readline()
    if not line:
        return
    task = json.loads(line)
    os.environ.update(task["environment"], TIDEMILL_PRELOAD_S=str(preload))
    # The thread must not hold the lock of sys.stdin: a child that the task forks closes sys.stdin, and would wait.
    pipe = os.dup(0)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with_the_runner, args=(pipe,), daemon=True).start()
    exit_code = 0
    try:
        with tempfile.TemporaryDirectory() as directory:
            program = Path(directory) / "ephemeral_component.py"
            program.write_text(task["code"], encoding="utf-8")
            sys.argv = ["executor_main", "--component_module_path", str(program), *task["arguments"]]
            executor.executor_main()
    except OSError as error:  # around the stage, which tells its own: a disk too full for what kfp itself writes
        failure = classify("the task's process", error)
        if failure.exit_code != PlatformError.exit_code:
            raise
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
        exit_code = failure.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # tearing TensorFlow and Beam down takes a second and does nothing for anyone


def _end_with_the_runner(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
