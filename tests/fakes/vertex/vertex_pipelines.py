"""PipelineService: jobs that go one step further whenever somebody looks at them."""

from __future__ import annotations

import re
from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2, json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from vertex_world import Refusal, World, check_display_name, check_labels, matching, now, page

_STATE: Final = sdk.PipelineState
_TASK: Final = sdk.PipelineTaskDetail.State
_ENDED: Final = (_STATE.PIPELINE_STATE_SUCCEEDED, _STATE.PIPELINE_STATE_FAILED, _STATE.PIPELINE_STATE_CANCELLED)
_MAX_PARAMETER: Final = 10_000


class Pipelines:
    """Answers for ``google.cloud.aiplatform.v1.PipelineService``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create_pipeline_job(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        identity = request.pipeline_job_id or f"job-{self.world.number_for()}"
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", identity):
            raise Refusal("INVALID_ARGUMENT", f"pipeline_job_id '{identity}' is invalid: [a-z][-a-z0-9]{{0,127}}.")
        name = f"{self.world.parent}/pipelineJobs/{identity}"
        if name in self.world.jobs:
            raise Refusal("ALREADY_EXISTS", f"The PipelineJob {name} already exists.")
        check_job(self.world, request.pipeline_job)
        running = [job for job in self.world.jobs.values() if job.state not in _ENDED]
        if len(running) >= self.world.job_limit:
            metric = "aiplatform.googleapis.com/concurrent_pipeline_jobs"
            raise Refusal("RESOURCE_EXHAUSTED", f"The following quotas are exceeded: {metric}")
        job = sdk.PipelineJob(request.pipeline_job)
        job.name, job.state = name, _STATE.PIPELINE_STATE_PENDING
        job.create_time = job.update_time = now()
        job.labels["vertex-ai-pipelines-run-billing-id"] = self.world.number_for()
        job.job_detail.task_details = self._details(job)
        self.world.jobs[name] = job
        self.world.steps[name] = 0
        return job

    def get_pipeline_job(self, request: Any) -> Any:
        job = self._job(request.name)
        told = sdk.PipelineJob(job)
        self._advance(job)
        return told

    def list_pipeline_jobs(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        jobs = matching(self.world.jobs.values(), request.filter, ("display_name",))
        if request.order_by not in ("", "create_time desc", "create_time asc"):
            raise Refusal("INVALID_ARGUMENT", f"Invalid order_by: '{request.order_by}'.")
        jobs.sort(key=lambda job: job.create_time, reverse=request.order_by.endswith("desc"))
        found, token = page(jobs, request.page_size, request.page_token)
        return sdk.ListPipelineJobsResponse(
            pipeline_jobs=[_masked(job, request.read_mask) for job in found], next_page_token=token
        )

    def cancel_pipeline_job(self, request: Any) -> Any:
        job = self._job(request.name)
        if job.state in _ENDED:
            raise Refusal("FAILED_PRECONDITION", f"The PipelineJob {job.name} is in state {job.state.name}.")
        job.state = _STATE.PIPELINE_STATE_CANCELLING
        return empty_pb2.Empty()

    def _job(self, name: str) -> Any:
        self.world.check_name(name, "pipelineJobs")
        if name not in self.world.jobs:
            raise Refusal("NOT_FOUND", f"The PipelineJob {name} is not found.")
        return self.world.jobs[name]

    def _details(self, job: Any) -> list[Any]:
        spec = json_format.MessageToDict(type(job).pb(job).pipeline_spec)
        details: list[Any] = []

        def add(name: str, parent: int | None, component: dict[str, Any]) -> None:
            identity = len(details) + 1
            detail = sdk.PipelineTaskDetail(task_id=identity, task_name=name, state=_TASK.PENDING, create_time=now())
            if parent is not None:
                detail.parent_task_id = parent
            details.append(detail)
            for child, task in _ordered(component.get("dag", {}).get("tasks", {})):
                add(child, identity, spec["components"][task["componentRef"]["name"]])

        add(job.name.rsplit("/", 1)[-1], None, spec["root"])
        return details

    def _advance(self, job: Any) -> None:
        """Takes a job to what the next look will see: running, half done, done."""
        if job.state in _ENDED:
            return
        self.world.steps[job.name] += 1
        details = job.job_detail.task_details
        parents = {detail.parent_task_id for detail in details}
        leaves = [detail for detail in details if detail.task_id not in parents]
        if job.state == _STATE.PIPELINE_STATE_CANCELLING:
            self._end(job, _STATE.PIPELINE_STATE_CANCELLED)
            for detail in leaves:
                if detail.state in (_TASK.PENDING, _TASK.RUNNING):
                    detail.state, detail.end_time = _TASK.CANCELLED, now()
            return
        job.state = _STATE.PIPELINE_STATE_RUNNING
        if not job.start_time:
            job.start_time = now()
        if self.world.held:
            return
        half = len(leaves) // 2
        for index, detail in enumerate(leaves):
            if self.world.steps[job.name] == 1 and index > 0:
                break
            if self.world.steps[job.name] == 2 and index > half:
                break
            if detail.state == _TASK.PENDING:
                self._start(detail)
            elif detail.state == _TASK.RUNNING:
                self._finish(detail)
        if self.world.steps[job.name] >= 3:
            for detail in leaves:
                if detail.state == _TASK.PENDING:
                    self._start(detail)
                if detail.state == _TASK.RUNNING:
                    self._finish(detail)
            failed = [detail for detail in leaves if detail.state == _TASK.FAILED]
            if not failed:
                self._end(job, _STATE.PIPELINE_STATE_SUCCEEDED)
                return
            self._end(job, _STATE.PIPELINE_STATE_FAILED)
            job.error.code = 9
            job.error.message = "; ".join(f"The {f.task_name} task failed: {f.error.message}" for f in failed)

    def _start(self, detail: Any) -> None:
        detail.state, detail.start_time = _TASK.RUNNING, now()
        worker = f"projects/{self.world.number}/locations/{self.world.region}/customJobs/{self.world.number_for()}"
        detail.executor_detail.container_detail.main_job = worker

    def _finish(self, detail: Any) -> None:
        detail.end_time = now()
        if (message := self.world.failing_tasks.get(detail.task_name)) is not None:
            detail.state = _TASK.FAILED
            detail.error.code, detail.error.message = 9, message
        else:
            detail.state = _TASK.SUCCEEDED

    def _end(self, job: Any, state: Any) -> None:
        job.state = state
        job.end_time = job.update_time = now()


def _ordered(tasks: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns tasks by name, each after those that it depends on; on the wire they have no order."""
    done: dict[str, Any] = {}
    while len(done) < len(tasks):
        ready = [n for n in sorted(tasks) if n not in done and set(tasks[n].get("dependentTasks", [])) <= done.keys()]
        done |= {name: tasks[name] for name in ready}
    return list(done.items())


def check_job(world: World, job: Any) -> None:
    """Refuses a PipelineJob that the service would refuse to make."""
    check_display_name(job.display_name)
    check_labels(job.labels)
    world.check_encryption(job.encryption_spec.kms_key_name)
    world.check_network(job.network)
    if job.service_account and not re.fullmatch(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com", job.service_account):
        raise Refusal("INVALID_ARGUMENT", f"The service account '{job.service_account}' is invalid.")
    root = job.runtime_config.gcs_output_directory
    if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/.*)?", root):
        raise Refusal("INVALID_ARGUMENT", f"gcs_output_directory '{root}' is invalid: it must be a gs:// path.")
    _check_spec(world, job)


def _check_spec(world: World, job: Any) -> None:
    spec = json_format.MessageToDict(type(job).pb(job).pipeline_spec)
    if not spec:
        raise Refusal("INVALID_ARGUMENT", "pipeline_spec is required.")
    try:
        parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        # A platform spec, a second document, a field of another version: nothing is silently left out.
        raise Refusal("INVALID_ARGUMENT", f"Failed to parse pipeline_spec: {error}") from error
    if parsed.schema_version != "2.1.0" or not parsed.pipeline_info.name:
        raise Refusal("INVALID_ARGUMENT", f"pipeline_spec: schemaVersion '{parsed.schema_version}' is not supported.")
    for name, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        resources = executor.get("container", {}).get("resources", {})
        accelerator = resources.get("accelerator", {})
        kind = accelerator.get("resourceType") or accelerator.get("type")
        if kind and kind not in sdk.AcceleratorType.__members__ and not kind.startswith("tpu-"):
            raise Refusal("INVALID_ARGUMENT", f"{name}: accelerator type '{kind}' is not supported.")
        if kind in world.unavailable_accelerators:
            metric = f"CustomModelTraining{kind.title().replace('_', '')}GPUsPerProjectPerRegion"
            raise Refusal("RESOURCE_EXHAUSTED", f"The following quotas are exceeded: {metric}")
    _check_parameters(parsed, job.runtime_config)


def _check_parameters(spec: Any, config: Any) -> None:
    known = spec.root.input_definitions.parameters
    given = {name: json_format.MessageToDict(v) for name, v in type(config).pb(config).parameter_values.items()}
    for name, value in given.items():
        if name not in known:
            raise Refusal("INVALID_ARGUMENT", f"The pipeline has no input parameter '{name}'.")
        if len(str(value)) > _MAX_PARAMETER:
            limit = f"it has {len(str(value))} characters; at most {_MAX_PARAMETER} are allowed"
            raise Refusal("INVALID_ARGUMENT", f"The value of parameter '{name}' is too long: {limit}.")
        kind = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(known[name].parameter_type)
        fitting = {
            "STRING": (str,),
            "NUMBER_INTEGER": (float, int),
            "NUMBER_DOUBLE": (float, int),
            "BOOLEAN": (bool,),
            "LIST": (list,),
            "STRUCT": (dict,),
        }.get(kind, (object,))
        if not isinstance(value, fitting):
            raise Refusal("INVALID_ARGUMENT", f"Parameter '{name}' must be of type {kind}.")
    for name, parameter in known.items():
        if name not in given and not parameter.HasField("default_value") and not parameter.is_optional:
            raise Refusal("INVALID_ARGUMENT", f"Input parameter '{name}' has no value and no default.")


def _masked(job: Any, mask: Any) -> Any:
    """Returns the fields of a job that a list shows; ``job_detail`` is never among them."""
    paths = [re.sub(r"[A-Z]", lambda m: f"_{m.group().lower()}", path) for path in mask.paths]
    if unknown := [path for path in paths if path.split(".")[0] not in sdk.PipelineJob.meta.fields]:
        raise Refusal("INVALID_ARGUMENT", f"Invalid field mask path: '{unknown[0]}'.")
    shown = sdk.PipelineJob(job)
    shown.job_detail = None
    for name in sdk.PipelineJob.meta.fields:
        if paths and name not in paths:
            type(shown).pb(shown).ClearField(name)
    return shown
