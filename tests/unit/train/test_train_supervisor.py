"""Local workers: started with a place for each, watched, started again together, and ended with whoever started them.

What a worker does is acted out here by ``acting_worker.py``; test_train_kills.py has the real one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tidemill.errors import PlatformError, Preempted, TidemillError, UserCodeError
from tidemill.jobs.job import CHECKPOINTS, TrainingJob
from tidemill.train.local_launcher import LocalLauncher
from tidemill.train.ports import reserved
from tidemill.train.preemption import Notice
from tidemill.train.supervisor import TRIES, Supervisor

ACTOR = (sys.executable, str(Path(__file__).with_name("acting_worker.py")))


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Returns a function that has workers act, each by a list of tries, and returns the outcome and what was said."""
    monkeypatch.setattr("tidemill.train.local_launcher._SETTLE_S", 0.3)
    monkeypatch.setattr("tidemill.jobs.heartbeats.INTERVAL_S", 0.3)
    monkeypatch.setattr("tidemill.train.supervisor._LOOK_S", 0.2)

    def play(*acts, hang_timeout_s=60.0, notice=None, said=None):
        (tmp_path / "act.json").write_text(json.dumps(acts))
        arguments = ("--act", str(tmp_path / "act.json"), "--shared", str(tmp_path / "shared"))
        job = TrainingJob("train", arguments, len(acts), tmp_path / "shared")
        said = [] if said is None else said
        checkpoints = job.shared / CHECKPOINTS / "train"
        supervisor = Supervisor(
            job, LocalLauncher(ACTOR), str(checkpoints), hang_timeout_s, notice or Notice(), said.append
        )
        return supervisor.run(), said

    return play


def tries(tmp_path, worker=0):
    return len((tmp_path / f"tries-{worker}").read_text())


def test_each_worker_has_its_place_and_its_part_of_the_cores(play):
    _, said = play([["environment"]], [["environment"]])
    told = {}
    for line in said:
        name, _, text = line.partition(": ")
        if text.startswith("{"):
            told[name] = json.loads(text)
    chief, other = (json.loads(told[name]["TF_CONFIG"]) for name in ("chief", "worker-1"))
    assert chief["cluster"] == other["cluster"]
    addresses = [*chief["cluster"]["chief"], *chief["cluster"]["worker"]]
    assert len(set(addresses)) == 2
    assert all(a.startswith("127.0.0.1:") for a in addresses)
    assert (chief["task"], other["task"]) == ({"type": "chief", "index": 0}, {"type": "worker", "index": 0})
    assert int(told["chief"]["TF_NUM_INTRAOP_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_when_one_worker_is_killed_all_start_again_and_the_record_says_why(play, tmp_path):
    outcome, said = play([["step", "train"], ["step"]], [["die"], ["step"]])
    assert outcome.restarts == ("worker-1: must live as long as the training (got worker-1 was killed by SIGKILL)",)
    assert "train: restart 1, from step 1: " + outcome.restarts[0] in said
    assert "chief: does step" in said
    assert tries(tmp_path, 0) == tries(tmp_path, 1) == 2


def test_workers_that_die_without_getting_on_are_given_up(play, tmp_path):
    with pytest.raises(PlatformError, match=rf"the last {TRIES} tries: must get beyond step 0 .*killed by SIGKILL"):
        play([["die"]], [["train"]])
    assert tries(tmp_path) == TRIES


def test_each_new_checkpoint_resets_the_count_of_deaths(play):
    outcome, _ = play([*[["step", "die"]] * (TRIES + 2), ["step"]], [*[["train"]] * (TRIES + 2), []])
    assert len(outcome.restarts) == TRIES + 2


def test_an_error_of_the_users_is_passed_on_and_not_repeated(play, tmp_path):
    with pytest.raises(UserCodeError, match=r"worker-1: model.py:3: raised while it built the model"):
        play([["train"]], [["blame"]])
    assert tries(tmp_path) == 1


def test_a_defect_is_passed_on_and_not_repeated(play, tmp_path):
    with pytest.raises(TidemillError, match="ValueError: a defect") as raised:
        play([["train"]], [["defect"]])
    assert (raised.value.exit_code, tries(tmp_path)) == (1, 1)


def test_a_worker_that_ends_without_a_word_is_named_with_its_exit_code(play):
    with pytest.raises(TidemillError, match=r"worker-1: must say why it ends .*worker-1 ended with exit code 7"):
        play([["train"]], [["leave"]])


def test_a_worker_that_gets_nothing_done_is_named_and_all_start_again(play):
    """The chief waits for it within a step, which is no fault of the chief's."""
    outcome, said = play([["step", "train"], []], [["step", "hang"], []], hang_timeout_s=6.0)
    (reason,) = outcome.restarts
    assert reason.startswith("worker-1: must get something done within 6 s (training.hang_timeout_s) (got worker-1")
    # It begins from the chief's first checkpoint if that is there before it is.
    assert re.search(r"while it waited for the rows of step [23]\)", reason)
    assert any(reason in line for line in said)


def test_a_worker_that_is_stopped_altogether_is_told_by_its_silence(play):
    outcome, _ = play([["step", "train"], []], [["step", "stop"], []], hang_timeout_s=6.0)
    assert "without a sign of life" in outcome.restarts[0]
    assert outcome.restarts[0].startswith("worker-1: ")


def test_told_to_end_all_workers_are_and_nothing_starts_again(play, tmp_path):
    notice, said = Notice(), []

    def tell():
        while sum("does train" in line for line in said) < 2:
            time.sleep(0.05)
        notice.tell(signal.SIGTERM)

    threading.Thread(target=tell).start()
    told = pytest.raises(Preempted, match=r"was told to end .*with all saved at step 1 .*SIGTERM")
    with told as raised, notice.deferred():
        play([["step", "train"]], [["train"]], notice=notice, said=said)
    assert (raised.value.exit_code, raised.value.retryable) == (5, True)
    assert [json.loads(p.read_text())["error"]["type"] for p in (tmp_path / "shared/records").iterdir()] == [
        "Preempted",
        "Preempted",
    ]
    assert tries(tmp_path) == 1


def test_told_to_end_after_the_last_step_the_training_is_done(play, tmp_path):
    """The workers finish though they are told to end, so that there is nothing to try again."""
    notice, said = Notice(), []

    def tell():
        while sum("is done" in line for line in said) < 2:
            time.sleep(0.05)
        notice.tell(signal.SIGTERM)

    threading.Thread(target=tell).start()
    with notice.deferred():
        outcome, _ = play([["step", "finish"]], [["finish"]], notice=notice, said=said)
    assert any("told to end" in line for line in said)
    assert (outcome.summary, outcome.restarts) == ({"steps": 1}, ())


def test_a_worker_that_alone_is_told_to_end_makes_all_start_again(play, tmp_path):
    """A machine is wanted back: its workers have saved and ended, and the training goes on elsewhere."""
    said = []

    def tell():
        while sum("does train" in line for line in said) < 2:
            time.sleep(0.05)
        for pid in children():
            os.kill(pid, signal.SIGTERM)

    threading.Thread(target=tell).start()
    outcome, _ = play([["step", "train"], []], [["train"], []], said=said)
    assert len(outcome.restarts) == 1
    assert "was told to end before it was done" in outcome.restarts[0]


def children(of: int | None = None) -> list[int]:
    path = Path(f"/proc/{of or os.getpid()}/task")
    return [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]


def test_no_worker_outlives_the_process_that_started_it(tmp_path):
    """It is killed without a chance to end them, and one of them is stopped: that one can't end itself either."""
    (tmp_path / "act.json").write_text(json.dumps([[["train"]], [["stop"]]]))
    program = """if True:
        import sys
        from pathlib import Path
        from tidemill.jobs.job import TrainingJob
        from tidemill.train.local_launcher import LocalLauncher
        from tidemill.train.preemption import Notice
        from tidemill.train.supervisor import Supervisor
        shared = Path(sys.argv[1]) / "shared"
        job = TrainingJob("train", ("--act", sys.argv[1] + "/act.json", "--shared", str(shared)), 2, shared)
        Supervisor(job, LocalLauncher((sys.executable, "-m", "tests_entry")), str(shared), 60.0, Notice()).run()
    """
    entry = tmp_path / "tests_entry.py"
    entry.write_text(
        "import os, signal, sys, time\nfrom tidemill.train import worker\n"
        "worker._die_with(int(sys.argv[sys.argv.index('--parent') + 1]))\nprint('ready', flush=True)\n"
        "if '\"worker\", \"index\"' in os.environ['TF_CONFIG']: os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert sorted(process.stdout.readline() for _ in range(2)) == ["chief: ready\n", "worker-1: ready\n"]
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_port_is_given_to_one_at_a_time():
    with reserved(50) as some, reserved(50) as others:
        assert len({*some, *others}) == 100


def test_where_no_port_is_free_that_is_said(monkeypatch):
    monkeypatch.setattr("tidemill.train.ports._RANGE", (20000, 20003))
    with pytest.raises(PlatformError, match="needs 4 free ports between 20000 and 20003"), reserved(4):
        pass
