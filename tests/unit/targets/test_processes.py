"""Task processes end with their runner, and what can't run locally is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tidemill.errors import PlatformError
from tidemill.images import CONTROL
from tidemill_pipelines.targets.local.processes import Processes


def _command(body: str, outputs: Path = Path("unused")) -> list[str]:
    script = 'printf "%s" "$0"; python3 -m kfp.dsl.executor_main "$@"'
    code = f"from kfp import dsl\n\ndef task():\n    {body}\n"
    return [
        "sh",
        "-ec",
        script,
        code,
        "--executor_input",
        json.dumps({"outputs": {"outputFile": str(outputs / "executor_output.json")}}),
        "--function_to_execute",
        "task",
    ]


def test_a_container_component_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="Python components"):
        Processes(tmp_path, {}).run("task", CONTROL, ["echo", "hello", "there", ""], {})


def test_a_component_that_would_install_at_run_time_is_refused(tmp_path: Path) -> None:
    command = _command("pass")
    command[2] = "pip install something; " + command[2]
    with pytest.raises(PlatformError, match="install nothing"):
        Processes(tmp_path, {}).run("task", CONTROL, command, {})


def test_a_warm_process_that_is_not_needed_is_ended(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {})
    processes.warm("task", CONTROL, _command("pass"))
    (waiting,) = processes._waiting.values()
    processes.close()
    assert waiting.returncode is not None


def test_a_killed_runner_takes_its_working_task_along(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    body = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    runner = (
        "from pathlib import Path\n"
        "from tidemill_pipelines.targets.local.processes import Processes\n"
        f"Processes(Path({str(tmp_path)!r}), {{}}).run('task', {CONTROL!r}, {_command(body)!r}, {{}})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", runner])
    deadline = time.monotonic() + 20
    while not (marker.exists() and marker.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    task = int(marker.read_text())
    while _alive(task):
        assert time.monotonic() < deadline, "the task went on without its runner"
        time.sleep(0.05)


def test_a_task_may_fork(tmp_path: Path) -> None:
    """multiprocessing's children close standard input, which the task's process also watches."""
    body = (
        "import multiprocessing; child = multiprocessing.get_context('fork').Process(target=print); "
        "child.start(); child.join(20); code = child.exitcode; child.kill(); assert code == 0"
    )
    assert Processes(tmp_path, {}).run("task", CONTROL, _command(body, tmp_path), {}).exit_code == 0


def test_modules_where_the_command_is_started_take_nothings_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uuid.py").write_text("raise AssertionError('this uuid is the user's')")
    monkeypatch.chdir(tmp_path)
    assert Processes(tmp_path, {}).run("task", CONTROL, _command("import uuid", tmp_path), {}).exit_code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_outside_the_stage_is_the_platforms_fault_too(tmp_path: Path) -> None:
    body = "open('/dev/full', 'w', buffering=1).write('x\\n')"
    assert Processes(tmp_path, {}).run("task", CONTROL, _command(body, tmp_path), {}).exit_code == 5
    assert "No space left" in (tmp_path / "task.log").read_text()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
