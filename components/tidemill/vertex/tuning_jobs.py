"""A tuning as a HyperparameterTuningJob of Vertex AI, which suggests the trials and runs each as a custom job.

Vertex AI appends the values of a trial to the arguments of its container, ``--<parameter>=<value>``, and takes the
objective from the file that CLOUD_ML_HP_METRIC_FILE names.
Source: https://cloud.google.com/vertex-ai/docs/training/using-hyperparameter-tuning
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tidemill.bundle import open_bundle
from tidemill.errors import UserError
from tidemill.files import replaced_directory, write_json
from tidemill.jobs.job import JobStatus, TrainingJob, job_name
from tidemill.jobs.watch import Patience, Watch
from tidemill.tuning import Tuning
from tidemill.vertex.clients import Clients
from tidemill.vertex.custom_jobs import MOUNT, NamedJobs, job_spec, named
from tidemill.vertex.job_logs import JobLogs
from tidemill.vertex.location import Location
from tidemill.vertex.registry import RUN_LABEL, label
from tidemill.vertex.runs import run_is_over
from tidemill.vertex.study import drawn, hyperparameters, study_spec
from tidemill.vertex.training import TrainingSettings

TRIAL: Final = ("python3", "-m", "tidemill.tune.managed")
TRIALS: Final = "trials"
_STUDY: Final = "study.json"
_RESULT: Final = "result.json"
_OVER: Final = ("SUCCEEDED", "INFEASIBLE")
_POLL_S: Final = 30.0


class TuningJobs(NamedJobs):
    """HyperparameterTuningJobs of a project's region; implements `tidemill.jobs.job.Launcher`."""

    def __init__(
        self,
        clients: Clients,
        settings: TrainingSettings,
        tuning: Tuning,
        logs: JobLogs | None = None,
        mount: str = MOUNT,
    ) -> None:
        """Makes no call."""
        super().__init__(
            clients,
            logs,
            "tuning job",
            clients.jobs.list_hyperparameter_tuning_jobs,
            clients.jobs.get_hyperparameter_tuning_job,
            clients.jobs.cancel_hyperparameter_tuning_job,
        )
        self._settings, self._tuning, self._mount = settings, tuning, mount
        self._ended: set[str] = set()
        self._told: set[str] = set()

    def submit(self, job: TrainingJob) -> str:
        """Makes the job, or finds the one of that name that hasn't failed; returns its resource name."""
        wanted = tuning_job(self._settings, self._tuning, job, self._mount)
        create = self._clients.jobs.create_hyperparameter_tuning_job
        return self._made(wanted, create, "hyperparameter_tuning_job")

    def status(self, id: str) -> JobStatus:
        status = super().status(id)
        if status.state != "running":
            return status
        states = [trial.state.name for trial in self.trials(id)]
        return replace(status, detail=f"{states.count('SUCCEEDED')} of {self._tuning.budget.trials} trials have ended")

    def logs(self, id: str) -> Iterator[str]:
        """Yields what is new; Cloud Logging answers 60 requests a minute, so trials that have ended are let be."""
        yield from super().logs(id)
        for trial in self.trials(id):
            if not trial.custom_job or trial.custom_job in self._told:
                continue
            for line in super().logs(trial.custom_job):
                yield f"trial-{trial.id}: {line}"
            if trial.custom_job in self._ended:  # at the last look already: what was late has come
                self._told.add(trial.custom_job)
            elif trial.state.name in _OVER:
                self._ended.add(trial.custom_job)

    def trials(self, id: str) -> list[Any]:
        return list(self._job(id).trials)

    def place(self, id: str) -> str:
        return self._clients.location.console(f"hyperparameter-tuning-jobs/{id.rsplit('/', 1)[-1]}")


def tuning_job(settings: TrainingSettings, tuning: Tuning, job: TrainingJob, mount: str = MOUNT) -> dict[str, Any]:
    """Returns the HyperparameterTuningJob that a tuning asks for.

    Raises:
        UsageError: if Vertex AI can't do what the tuning says.
    """
    spec = job_spec(settings, job, mount, TRIAL)
    content = {
        "study_spec": study_spec(tuning),
        "max_trial_count": tuning.budget.trials,
        "parallel_trial_count": min(tuning.parallel, tuning.budget.trials),
        "trial_job_spec": spec,
    }
    return named(settings, job, content)


def tune(
    bundle: str | Path,
    transformed: str | Path,
    transform_graph: str | Path,
    settings: Mapping[str, Any],
    study: str | Path,
    shared: str | Path,
    run_id: str,
    folds: str | Path | None = None,
    clients: Clients | None = None,
    logs: JobLogs | None = None,
    patience: Patience | None = None,
    mount: str = MOUNT,
) -> dict[str, Any]:
    """Has Vertex AI tune, and writes the study as `tidemill.tune.study` has it; returns what is known of the job.

    Args:
        bundle: the problem, and below the mount of Cloud Storage as all else.
        settings: of the target.
        study: directory for the trials.
        shared: directory that outlives a try of the task and has its name.
        run_id: of the pipeline job.
        folds: as `fold` put out, where trials are cross-validated.

    Raises:
        UsageError: if Vertex AI can't do what the tuning says.
        PlatformError: if the job fails.
    """
    parsed, directory = TrainingSettings.parse(settings), Path(shared)
    tuning = open_bundle(Path(bundle)).problem.tuning
    if tuning is None:
        raise UserError("problem.yaml", "needs `tuning` for this pipeline")
    asked = clients or Clients(Location.parse(parsed.location))
    given = {"bundle": bundle, "transformed": transformed, "transform-graph": transform_graph, "folds": folds}
    words = [word for name, path in given.items() if path is not None for word in (f"--{name}", str(path))]
    job = TrainingJob(
        name=job_name(run_id, directory.name),
        arguments=(*words, "--objective", tuning.objective, "--trials", str(directory / TRIALS)),
        workers=1,
        shared=directory,
        labels={RUN_LABEL: label(run_id)},
    )
    launcher = TuningJobs(asked, parsed, tuning, logs, mount)
    outcome = Watch(launcher, job, patience or Patience(poll_s=_POLL_S), lambda: run_is_over(asked, run_id)).run()
    trials = [_trial(trial, tuning, directory / TRIALS) for trial in launcher.trials(outcome.id)]
    with replaced_directory(Path(study)) as partial:
        write_json(partial / _STUDY, {"trials": trials, "round": 1, "stopped": "Vertex AI has run all trials"})
    states = [trial["state"] for trial in trials]
    return {"job": outcome.id, "attempts": outcome.attempts, "trials": len(trials), "failed": states.count("failed")}


def _trial(trial: Any, tuning: Tuning, trials: Path) -> dict[str, Any]:
    """Returns a trial as the study has it: with its own report if it left one, or else with what Vertex AI measured."""
    number, path = int(trial.id) - 1, trials / trial.id / _RESULT
    measured = {metric.metric_id: metric.value for metric in trial.final_measurement.metrics}
    result: dict[str, Any] = {"metrics": measured, "folds": []}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    sound = trial.state.name == "SUCCEEDED" and tuning.objective in measured
    reason = result.get("error") or trial.infeasible_reason or trial.state.name
    values = hyperparameters(trial, tuning)
    parameters, distributions = drawn(values, tuning)
    return {
        "number": number,
        "cohort": 0,
        "bracket": 0,
        "hyperparameters": values,
        "parameters": parameters,
        "distributions": distributions,
        "state": "complete" if sound else "failed",
        "results": [{**result, "number": number, "rung": 0}] if sound else [],
        "reason": "" if sound else reason,
    }
