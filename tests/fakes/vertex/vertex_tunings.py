"""JobService, as far as it concerns hyperparameter tuning: what it refuses, and trials that it suggests by itself.

Each trial takes another value of every parameter, and its objective is its number: the last one is the largest.
"""

from __future__ import annotations

from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2, struct_pb2
from vertex_jobs import ENDED, CustomJobs, check_job_spec, masked_job
from vertex_world import Refusal, check_display_name, check_labels, matching, now, page

_STATE: Final = sdk.JobState
_TRIAL: Final = sdk.Trial.State
_SCALE: Final = sdk.StudySpec.ParameterSpec.ScaleType
_MOST_VALUES: Final = 1000


class AllJobs(CustomJobs):
    """Answers for jobs of every kind."""

    def create_hyperparameter_tuning_job(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        job = sdk.HyperparameterTuningJob(request.hyperparameter_tuning_job)
        check_display_name(job.display_name)
        check_labels(job.labels)
        self.world.check_encryption(job.encryption_spec.kms_key_name)
        check_job_spec(self.world, job.trial_job_spec, job.encryption_spec.kms_key_name)
        if job.max_trial_count < 1 or not 1 <= job.parallel_trial_count <= job.max_trial_count:
            raise Refusal("INVALID_ARGUMENT", "parallel_trial_count must be from 1 to max_trial_count.")
        _check_study(job.study_spec)
        job.name = f"{self.world.parent}/hyperparameterTuningJobs/{self.world.number_for()}"
        job.state, job.create_time = _STATE.JOB_STATE_PENDING, now()
        self.world.tunings[job.name] = job
        return job

    def get_hyperparameter_tuning_job(self, request: Any) -> Any:
        job = self._tuning(request.name)
        if job.state == _STATE.JOB_STATE_CANCELLING:
            job.state, job.end_time = _STATE.JOB_STATE_CANCELLED, now()
        elif job.state == _STATE.JOB_STATE_PENDING:
            job.state, job.start_time = _STATE.JOB_STATE_RUNNING, now()
        elif job.state == _STATE.JOB_STATE_RUNNING and not self.world.held:
            self._go_on(job)
        return job

    def list_hyperparameter_tuning_jobs(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        found = matching(self.world.tunings.values(), request.filter, ("display_name",))
        shown, token = page(found, request.page_size, request.page_token)
        masked = [masked_job(job, request.read_mask.paths) for job in shown]
        return sdk.ListHyperparameterTuningJobsResponse(hyperparameter_tuning_jobs=masked, next_page_token=token)

    def cancel_hyperparameter_tuning_job(self, request: Any) -> Any:
        job = self._tuning(request.name)
        if job.state in ENDED:
            raise Refusal("FAILED_PRECONDITION", f"The job is in state {job.state.name}.")
        job.state = _STATE.JOB_STATE_CANCELLING
        return empty_pb2.Empty()

    def _tuning(self, name: str) -> Any:
        self.world.check_name(name, "hyperparameterTuningJobs")
        if name not in self.world.tunings:
            raise Refusal("NOT_FOUND", f"The HyperparameterTuningJob {name} does not exist.")
        return self.world.tunings[name]

    def _go_on(self, job: Any) -> None:
        """Ends as many trials as run at once, and the job after the last."""
        for _ in range(min(job.parallel_trial_count, job.max_trial_count - len(job.trials))):
            number = len(job.trials)
            trial = sdk.Trial(id=str(number + 1), state=_TRIAL.SUCCEEDED)
            trial.custom_job = f"{self.world.parent}/customJobs/{self.world.number_for()}"
            trial.parameters = list(_suggested(job.study_spec.parameters, number))
            if trial.id in self.world.failing_trials:
                trial.state, trial.infeasible_reason = _TRIAL.INFEASIBLE, "The trial reported no measurement."
            else:
                metric = sdk.Measurement.Metric(metric_id=job.study_spec.metrics[0].metric_id, value=number + 1)
                trial.final_measurement = sdk.Measurement(metrics=[metric])
            job.trials.append(trial)
        if len(job.trials) == job.max_trial_count:
            job.state, job.end_time = _STATE.JOB_STATE_SUCCEEDED, now()


def _suggested(specs: Any, number: int) -> Any:
    for spec in specs:
        if "categorical_value_spec" in spec:
            values = spec.categorical_value_spec.values
            value = struct_pb2.Value(string_value=values[number % len(values)])
        elif "discrete_value_spec" in spec:
            values = spec.discrete_value_spec.values
            value = struct_pb2.Value(number_value=values[number % len(values)])
        else:
            bounds = spec.integer_value_spec if "integer_value_spec" in spec else spec.double_value_spec
            value = struct_pb2.Value(number_value=min(bounds.min_value + number, bounds.max_value))
        yield sdk.Trial.Parameter(parameter_id=spec.parameter_id, value=value)
        for below in spec.conditional_parameter_specs:
            if _active(below, value):
                yield from _suggested([below.parameter_spec], number)


def _active(below: Any, value: struct_pb2.Value) -> bool:
    if "parent_categorical_values" in below:
        return value.string_value in below.parent_categorical_values.values
    if "parent_int_values" in below:
        return value.number_value in below.parent_int_values.values
    return value.number_value in below.parent_discrete_values.values


def _check_study(spec: Any) -> None:
    if len(spec.metrics) != 1 or not spec.metrics[0].metric_id or not spec.metrics[0].goal:
        raise Refusal("INVALID_ARGUMENT", "A study of a HyperparameterTuningJob has one metric with a goal.")
    if not spec.parameters:
        raise Refusal("INVALID_ARGUMENT", "parameters is required.")
    seen: set[str] = set()
    for parameter in spec.parameters:
        _check_parameter(parameter, seen)


def _check_parameter(spec: Any, seen: set[str]) -> None:
    name = spec.parameter_id
    if not name or any(c.isspace() for c in name) or name in seen:
        raise Refusal("INVALID_ARGUMENT", f"parameter_id '{name}' must be unique and without whitespace.")
    seen.add(name)
    if "categorical_value_spec" in spec:
        if not spec.categorical_value_spec.values or spec.scale_type:
            raise Refusal("INVALID_ARGUMENT", f"'{name}': a CATEGORICAL parameter has values and no scale.")
    elif "discrete_value_spec" in spec:
        values = list(spec.discrete_value_spec.values)
        if not values or len(values) > _MOST_VALUES or values != sorted(set(values)):
            raise Refusal("INVALID_ARGUMENT", f"'{name}' must have 1 to {_MOST_VALUES} increasing values.")
    else:
        bounds = spec.integer_value_spec if "integer_value_spec" in spec else spec.double_value_spec
        if not bounds.min_value < bounds.max_value:
            raise Refusal("INVALID_ARGUMENT", f"'{name}': min_value must be less than max_value.")
        if spec.scale_type == _SCALE.UNIT_LOG_SCALE and bounds.min_value <= 0:
            raise Refusal("INVALID_ARGUMENT", f"'{name}': a logarithmic scale needs positive values.")
    for below in spec.conditional_parameter_specs:
        if "double_value_spec" in spec:
            raise Refusal("INVALID_ARGUMENT", f"'{name}': nothing can hang on a DOUBLE parameter.")
        _check_parameter(below.parameter_spec, seen)
