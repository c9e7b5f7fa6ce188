"""From a table to an answering endpoint, and what stands in the way."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from command import LENDING, QUICK, Command

STAGES = ("ingest", "validate", "transform", "train", "evaluate", "rehearse")
NEVER_REUSED = {"find-champion", "register", "deploy", "report"}


def test_a_good_table_ends_released_with_a_report_and_an_answering_endpoint(
    tidemill: Command, released: Any, loans: Path
) -> None:
    assert released["verdict"] == "released", released
    assert released["exit_code"] == 0
    assert {released["tasks"][stage]["status"] for stage in STAGES} == {"succeeded"}
    page = Path(released["report"]).read_text()
    assert "released" in page.lower()
    assert "http-equiv" in page
    deployment = released["deployment"]
    with loans.open() as file:
        row = next(csv.DictReader(file))
    features = {name: row[name] for name in ("employment", "housing", "channel", "region", "purpose")}
    instance = {**features, "age": int(row["age"]), "applied_at": None}
    request = urllib.request.Request(
        f"{deployment['address']}/v1/models/lending:predict", json.dumps({"instances": [instance]}).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        (prediction,) = json.load(response)["predictions"]
    assert 0 <= prediction["probability"] <= 1
    assert prediction["label"] in ("yes", "no")


def test_the_lineage_of_the_model_goes_down_to_the_data_and_the_lock(tidemill: Command, released: Any) -> None:
    shown = tidemill.json("models", "show", "lending", str(released["deployment"]["version"]))
    run, origins = tidemill.json("runs", "show", released["run"]), shown["lineage"]
    assert origins["run_id"] == released["run"]
    assert origins["examples"]["source"]["fingerprint"] == run["source_fingerprint"]
    assert origins["bundle"] == run["bundle"]
    assert origins["model"]["digest"] == shown["model"]["digest"]
    assert len(origins["examples"]["manifest"]) == 64
    environment = run["environment"]
    assert origins["environment"]["lock"] == environment["uv.lock sha256"] != "unlocked"
    assert origins["environment"]["commit"] == environment["git commit"]


def test_the_curl_command_that_the_run_prints_works(released: Any) -> None:
    done = subprocess.run(released["deployment"]["curl"], shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"]


def test_a_second_run_reuses_every_stage_that_did_not_change(tidemill: Command, released: Any, loans: Path) -> None:
    again = tidemill.run(loans)
    assert again["verdict"] == "released"
    reused = {name for name, task in again["tasks"].items() if task["status"] == "cached"}
    assert {"ingest", "transform", "train"} <= reused
    assert not reused & NEVER_REUSED
    assert len(tidemill.json("models", "show", "lending")["versions"]) == 1, "the same model got two versions"
    shown = tidemill("runs", "show", again["run"], "--why-cached")
    assert released["run"] in shown.stdout


def test_a_changed_file_behind_the_same_path_is_noticed(tidemill: Command, released: Any, loans: Path) -> None:
    original = loans.read_text()
    try:
        loans.write_text("".join(original.splitlines(keepends=True)[:-1]))
        # A gate that cannot pass ends the run early: only what ingest does is of interest here.
        stopped = tidemill.run(loans, "--set", "gates.data.min_rows=1000000")
    finally:
        loans.write_text(original)
    assert stopped["tasks"]["ingest"]["status"] == "succeeded"
    assert stopped["verdict"] == "refused"
    why = tidemill.json("runs", "show", stopped["run"])["tasks"]
    (ingest,) = [task for task in why if task["name"] == "ingest"]
    assert "source_fingerprint" in ingest["cache_reason"]


def test_a_quality_limit_that_is_not_met_stops_before_anything_is_registered(
    tidemill: Command, released: Any, loans: Path
) -> None:
    refused = tidemill.run(loans, "--set", "gates.quality=[{metric: auc, min: 0.9999}]")
    assert refused["verdict"] == "refused"
    assert refused["exit_code"] == 3
    assert [check["name"] for check in refused["checks"] if not check["passed"]] == ["auc"]
    assert any("ROC curve" in message for message in refused["refusals"])
    assert {refused["tasks"][stage]["status"] for stage in ("ingest", "transform", "train")} == {"cached"}
    assert not {"rehearse", "register", "deploy"} & set(refused["tasks"])
    assert "refused" in Path(refused["report"]).read_text().lower()


def test_a_fairness_limit_that_is_not_met_stops_too(tidemill: Command, released: Any, loans: Path) -> None:
    limit = "gates.fairness=[{metric: demographic_parity_gap, max: 0.0, min_examples: 20}]"
    refused = tidemill.run(loans, "--set", limit)
    assert refused["verdict"] == "refused"
    assert any("parity" in message.lower() for message in refused["refusals"])


def test_a_label_that_is_not_there_is_bad_input_told_without_a_trace(
    tidemill: Command, loans: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.csv"
    header, rest = loans.read_text().split("\n", 1)
    broken.write_text(header.replace("repaid", "repayed") + "\n" + rest)
    done = tidemill("run", str(LENDING), "--source", str(broken), *QUICK)
    assert done.returncode == 4
    assert "repaid" in done.stdout
    assert "repayed" in done.stdout, "a near miss should be pointed out"
    assert "Traceback" not in done.stdout + done.stderr


def test_a_faulty_problem_is_told_with_all_its_faults_and_lines(tidemill: Command, loans: Path, tmp_path: Path) -> None:
    text = (LENDING / "problem.yaml").read_text()
    (tmp_path / "problem.yaml").write_text(
        text.replace("name: lending", "nam: lending").replace("numeric", "number", 1)
    )
    done = tidemill("run", str(tmp_path), "--source", str(loans))
    assert done.returncode == 4
    assert "nam" in done.stderr
    assert "line" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_at_once_leaves_nothing_running_and_says_how_to_go_on(loans: Path, tmp_path: Path) -> None:
    tidemill = Command(tmp_path)
    process = tidemill.start("run", str(LENDING), "--source", str(loans), *QUICK)
    run_dir = _wait_for(tmp_path, "ingest")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"--resume {run_dir.name}" in err
    assert json.loads((run_dir / "run.json").read_text())["verdict"] == "interrupted"
    assert not _processes_of(run_dir)


@pytest.mark.timeout(600)
def test_a_run_that_is_killed_at_every_stage_ends_as_if_it_never_was(
    tidemill: Command, released: Any, loans: Path, tmp_path: Path
) -> None:
    killed = Command(tmp_path)
    run_id: str | None = None
    for stage in (*STAGES, "register", "deploy"):
        resume = ("--resume", run_id) if run_id else ()
        process = killed.start("run", str(LENDING), "--source", str(loans), *QUICK, *resume)
        run_dir = _wait_for(tmp_path, stage, run_id)
        run_id = run_dir.name
        process.kill()
        process.communicate(timeout=30)
        _wait_until_gone(run_dir)
    try:
        ended = killed.run(loans, "--resume", str(run_id))
        assert ended["verdict"] == "released", ended
        assert ended["tasks"]["ingest"]["status"] == "cached"
        assert ended["run"] == run_id
        assert _metrics(tmp_path, str(run_id)) == _metrics(tidemill.runs_dir, released["run"])
        assert len(killed.json("models", "show", "lending")["versions"]) == 1
    finally:
        killed("endpoint", "down", "lending")


def _wait_for(runs_dir: Path, stage: str, run_id: str | None = None) -> Path:
    """Waits until ``stage`` is at work in the (newest) run below ``runs_dir``."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for record in runs_dir.glob(f"runs/{run_id or '*'}/tasks/{stage}.json"):
            if json.loads(record.read_text())["status"] == "running":
                return record.parents[1]
        time.sleep(0.05)
    raise AssertionError(f"{stage} never began")


def _processes_of(run_dir: Path) -> list[str]:
    """Returns the command lines of the processes that write to logs of the run or were told of its artefacts."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            logs = any(str(fd.readlink()).startswith(f"{run_dir}/logs") for fd in (process / "fd").iterdir())
        except OSError:  # the process ended while it was looked at
            continue
        if logs or f"{run_dir}/artifacts" in command:
            found.append(command)
    return found


def _wait_until_gone(run_dir: Path) -> None:
    deadline = time.monotonic() + 20
    while _processes_of(run_dir):
        assert time.monotonic() < deadline, f"orphans: {_processes_of(run_dir)}"
        time.sleep(0.1)


def _metrics(runs_dir: Path, run_id: str) -> Any:
    record = json.loads((runs_dir / "runs" / run_id / "tasks" / "evaluate.json").read_text())
    metrics = json.loads((Path(record["outputs"]["evaluation"]["uri"]) / "metrics.json").read_text())
    return metrics["metrics"], metrics["fairness"]
