"""A tuning as a HyperparameterTuningJob: what Vertex AI is asked to search, and the study that its trials make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidemill.bundle import pack
from tidemill.errors import PlatformError, UsageError
from tidemill.jobs.job import TrainingJob
from tidemill.jobs.watch import Patience
from tidemill.problem import load_problem
from tidemill.tuning import Tuning
from tidemill.vertex.job_logs import JobLogs
from tidemill.vertex.study import study_spec
from tidemill.vertex.training import TrainingSettings
from tidemill.vertex.tuning_jobs import TuningJobs, tune, tuning_job

LENDING = Path(__file__).parents[2] / "pipelines" / "problems" / "lending"
PARENT = "projects/example-project/locations/europe-west1"
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
    "batch_size": {"low": 64, "high": 256, "step": 64},
    "max_epochs": {"low": 1, "high": 9},
    "hidden_units": {"choices": [[64, 32], [128]]},
    "optimizer.kind": {"choices": ["adam", "sgd"]},
    "optimizer.momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer.kind": "sgd"}},
}
TUNING: dict[str, Any] = {"space": SPACE, "objective": "auc", "budget": {"trials": 5}, "parallel": 2}
SETTINGS = {"training": {}, "location": PARENT, "image": "tensorflow"}


def test_a_search_space_is_told_in_vertex_ais_terms() -> None:
    spec = study_spec(Tuning.model_validate(TUNING))
    assert spec["metrics"] == [{"metric_id": "auc", "goal": "MAXIMIZE"}]
    assert spec["algorithm"] == "ALGORITHM_UNSPECIFIED"
    assert spec["parameters"] == [
        {
            "parameter_id": "learning_rate",
            "double_value_spec": {"min_value": 0.001, "max_value": 0.1},
            "scale_type": "UNIT_LOG_SCALE",
        },
        {
            "parameter_id": "dropout",
            "discrete_value_spec": {"values": [0.0, 0.25, 0.5]},
            "scale_type": "UNIT_LINEAR_SCALE",
        },
        {
            "parameter_id": "batch_size",
            "discrete_value_spec": {"values": [64, 128, 192, 256]},
            "scale_type": "UNIT_LINEAR_SCALE",
        },
        {
            "parameter_id": "max_epochs",
            "integer_value_spec": {"min_value": 1, "max_value": 9},
            "scale_type": "UNIT_LINEAR_SCALE",
        },
        {"parameter_id": "hidden_units", "categorical_value_spec": {"values": ["[64, 32]", "[128]"]}},
        {
            "parameter_id": "optimizer.kind",
            "categorical_value_spec": {"values": ['"adam"', '"sgd"']},
            "conditional_parameter_specs": [
                {
                    "parent_categorical_values": {"values": ['"sgd"']},
                    "parameter_spec": {
                        "parameter_id": "optimizer.momentum",
                        "double_value_spec": {"min_value": 0.0, "max_value": 0.9},
                        "scale_type": "UNIT_LINEAR_SCALE",
                    },
                }
            ],
        },
    ]
    random = study_spec(Tuning.model_validate({**TUNING, "sampler": "random", "objective": "loss"}))
    assert (random["algorithm"], random["metrics"][0]["goal"]) == ("RANDOM_SEARCH", "MINIMIZE")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {}}, "a search space by code"),
        ({"pruning": {"kind": "hyperband"}, "space": {"dropout": SPACE["dropout"]}}, "has no hyperband"),
        ({"fairness": {}}, "one objective"),
        ({"budget": {"hours": 2}}, "leave `hours` and `cost` out"),
        ({"space": {"dropout": {"low": 0.0, "high": 0.9, "step": 0.0005}}}, "more than 1000 values"),
        (
            {"space": {**SPACE, "l2": {"low": 0, "high": 1, "when": {"optimizer.kind": "sgd", "max_epochs": 2}}}},
            "on one other, not on 2",
        ),
        (
            {"space": {**SPACE, "l2": {"low": 0, "high": 1, "when": {"learning_rate": 0.1}}}},
            "out of a continuous range",
        ),
    ],
)
def test_what_a_job_cannot_do_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        study_spec(Tuning.model_validate({**TUNING, **changes}))


def test_a_condition_may_be_a_whole_number_or_one_of_several_steps() -> None:
    space = {
        "max_epochs": SPACE["max_epochs"],
        "batch_size": SPACE["batch_size"],
        "dropout": {"low": 0.0, "high": 0.5, "when": {"max_epochs": 3}},
        "l2": {"low": 0.0, "high": 0.5, "when": {"batch_size": 128}},
    }
    epochs, batches = study_spec(Tuning.model_validate({**TUNING, "space": space}))["parameters"]
    assert epochs["conditional_parameter_specs"][0]["parent_int_values"] == {"values": [3]}
    assert batches["conditional_parameter_specs"][0]["parent_discrete_values"] == {"values": [128.0]}


@pytest.fixture
def study(tmp_path: Path, fake: Any, clients: Any) -> Any:
    """Runs the tune task on the lending problem, below a directory that stands for Cloud Storage."""
    bucket = tmp_path / "example-bucket"
    problem = load_problem(LENDING, {"tuning": json.dumps(TUNING)})
    bundle = pack(problem, LENDING, bucket, "whole")
    shared = bucket / "runs" / "run-7" / "scratch" / "tune"
    shared.mkdir(parents=True)

    def run(settings: Any = None, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        told = tune(
            bundle,
            bucket / "transformed",
            bucket / "graph",
            settings or SETTINGS,
            bucket / "study",
            shared,
            "run-7",
            clients=clients,
            logs=JobLogs(clients.location, fake.logging),
            patience=Patience(poll_s=0.01, submit_s=1.0),
            mount=str(tmp_path),
            **changes,
        )
        return told, json.loads((bucket / "study" / "study.json").read_text())["trials"]

    run.shared = shared  # type: ignore[attr-defined]
    return run


def test_the_trials_of_a_job_make_a_study(study: Any, fake: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A trial's own report counts where it left one; one that measured nothing has failed."""
    fake.set(failing_trials={"2"})
    own = {"number": 3, "rung": 0, "epochs": 4, "metrics": {"auc": 0.7, "loss": 0.5}, "folds": [], "seconds": 9.0}
    for number, result in (("2", {"error": "the loss is not finite"}), ("3", own)):
        (study.shared / "trials" / number).mkdir(parents=True)
        (study.shared / "trials" / number / "result.json").write_text(json.dumps(result))
    told, trials = study()
    assert (told["trials"], told["failed"], told["attempts"]) == (5, 1, 1)
    assert [trial["state"] for trial in trials] == ["complete", "failed", "complete", "complete", "complete"]
    assert trials[1]["reason"] == "the loss is not finite"
    assert trials[0]["results"] == [{"metrics": {"auc": 1.0}, "folds": [], "number": 0, "rung": 0}]
    assert trials[2]["results"] == [{**own, "number": 2}]
    assert trials[1]["hyperparameters"] == {
        "learning_rate": 0.1,
        "dropout": 0.25,
        "batch_size": 128,
        "max_epochs": 2,
        "hidden_units": [128],
        "optimizer.kind": "sgd",
        "optimizer.momentum": 0.9,
    }
    assert "optimizer.momentum" not in trials[0]["hyperparameters"]
    assert trials[1]["parameters"] == {
        **trials[1]["hyperparameters"],
        "hidden_units": "[128]",
        "optimizer.kind": '"sgd"',
    }
    told_from = {path: json.loads(text) for path, text in trials[1]["distributions"].items()}
    assert told_from.keys() == trials[1]["parameters"].keys()
    assert told_from["batch_size"] == {
        "name": "IntDistribution",
        "attributes": {"low": 64, "high": 256, "log": False, "step": 64},
    }
    (request,) = fake.requests("CreateHyperparameterTuningJob")
    job = request["hyperparameter_tuning_job"]
    assert (job["max_trial_count"], job["parallel_trial_count"]) == (5, 2)
    container = job["trial_job_spec"]["worker_pool_specs"][0]["container_spec"]
    assert container["command"] == ["python3", "-m", "tidemill.tune.managed"]
    assert container["args"][-4:] == ["--objective", "auc", "--trials", str(study.shared / "trials")]
    assert "of 5 trials have ended" in capfd.readouterr().out


def test_the_study_is_what_the_tune_stage_reads(study: Any, tmp_path: Path) -> None:
    study()
    study_module = pytest.importorskip("tidemill.tune.study")
    read = study_module.Study.read(tmp_path / "example-bucket" / "study")
    assert [trial.number for trial in read.trials] == [0, 1, 2, 3, 4]
    assert read.trials[4].results[0].metrics == {"auc": 5.0}


def test_a_tuning_that_is_asked_for_twice_is_one_job(study: Any, fake: Any) -> None:
    study()
    (study.shared / "job.json").unlink()
    study()
    assert len(fake.requests("CreateHyperparameterTuningJob")) == 1


def test_a_trial_has_one_machine_with_what_the_training_has(clients: Any, fake: Any) -> None:
    training = {
        "workers": 3,
        "accelerator": {"type": "NVIDIA_TESLA_T4"},
        "reduction_server": {"replicas": 1, "image": "registry.example.com/training/reductionserver:1"},
        "strategy": "spot",
    }
    settings = TrainingSettings.parse({**SETTINGS, "training": training, "labels": {"team": "risk"}})
    job = TrainingJob("tidemill-tune-0a1b", (), 1, Path("/gcs/example-bucket/shared"))
    wanted = tuning_job(settings, Tuning.model_validate(TUNING), job)
    (pool,) = wanted["trial_job_spec"]["worker_pool_specs"]
    assert pool["machine_spec"]["accelerator_type"] == "NVIDIA_TESLA_T4"
    assert wanted["trial_job_spec"]["scheduling"]["strategy"] == "SPOT"
    assert wanted["labels"]["team"] == "risk"


def test_logs_of_trials_are_told_and_a_cancelled_job_ends(clients: Any, fake: Any) -> None:
    tuning = Tuning.model_validate({**TUNING, "budget": {"trials": 3}, "parallel": 1})
    jobs = TuningJobs(clients, TrainingSettings.parse(SETTINGS), tuning, JobLogs(clients.location, fake.logging))
    started = jobs.submit(TrainingJob("tidemill-tune-0a1b", (), 1, Path("/gcs/example-bucket/shared")))
    assert jobs.status(started).state == "running"
    first = jobs.trials(started)[0].custom_job.rsplit("/", 1)[-1]
    resource = {"labels": {"job_id": first, "task_name": "workerpool0-0"}}
    line = {"insertId": "1", "timestamp": "2026-01-01T00:00:00Z", "textPayload": "step 1"}
    fake.ask("log", first, [{**line, "resource": resource}])
    assert list(jobs.logs(started)) == ["trial-1: worker-0: step 1"]
    assert "hyperparameter" in jobs.place(started)
    other = jobs.submit(TrainingJob("tidemill-tune-ffff", (), 1, Path("/gcs/example-bucket/shared")))
    jobs.cancel(other)
    assert jobs.status(other).state == "cancelled"
    jobs.cancel(other)


def test_logs_of_trials_that_have_ended_are_read_once_more_and_then_no_longer(clients: Any, fake: Any) -> None:
    """Cloud Logging answers 60 requests a minute, all of a project's together."""
    tuning = Tuning.model_validate({**TUNING, "budget": {"trials": 3}, "parallel": 3})
    jobs = TuningJobs(clients, TrainingSettings.parse(SETTINGS), tuning, JobLogs(clients.location, fake.logging))
    started = jobs.submit(TrainingJob("tidemill-tune-0a1b", (), 1, Path("/gcs/example-bucket/shared")))
    while jobs.status(started).state != "succeeded":
        pass
    counts = []
    for _ in range(3):
        before = len(fake.requests("entries:list"))
        assert list(jobs.logs(started)) == []
        counts.append(len(fake.requests("entries:list")) - before)
    assert counts == [4, 4, 1]


def test_a_job_that_fails_is_told_in_vertex_ais_words(study: Any, fake: Any) -> None:
    denied = "Permission 'aiplatform.hyperparameterTuningJobs.create' denied"
    fake.refuse("CreateHyperparameterTuningJob", "PERMISSION_DENIED", denied)
    with pytest.raises(PlatformError, match=r"hyperparameterTuningJobs\.create: grant roles/aiplatform\.user"):
        study()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"parameters": []}, "parameters is required"),
        ({"metrics": [{"metric_id": "auc"}]}, "one metric with a goal"),
        (
            {"parameters": [{"parameter_id": "a b", "integer_value_spec": {"min_value": 1, "max_value": 2}}]},
            "without whitespace",
        ),
        (
            {"parameters": [{"parameter_id": "a", "discrete_value_spec": {"values": [2, 1]}}]},
            "increasing values",
        ),
    ],
)
def test_the_service_itself_refuses_studies_that_cannot_be_meant(
    clients: Any, fake: Any, change: Any, refused: str
) -> None:
    settings, tuning = TrainingSettings.parse(SETTINGS), Tuning.model_validate(TUNING)
    wanted = tuning_job(settings, tuning, TrainingJob("tune", (), 1, Path("/gcs/example-bucket/shared")))
    wanted["study_spec"] |= change
    request = {"parent": PARENT, "hyperparameter_tuning_job": wanted}
    with pytest.raises(UsageError, match=refused):
        clients.once("tuning", clients.jobs.create_hyperparameter_tuning_job, request)
