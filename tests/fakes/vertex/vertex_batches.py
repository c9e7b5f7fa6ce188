"""JobService, as far as it concerns batch predictions."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2
from vertex_models import find_version
from vertex_world import Refusal, World, check_display_name, check_labels, check_machine, matching, now, page

_STATE: Final = sdk.JobState
_ENDED: Final = (_STATE.JOB_STATE_SUCCEEDED, _STATE.JOB_STATE_FAILED, _STATE.JOB_STATE_CANCELLED)


class Jobs:
    """Answers for the batch predictions of ``google.cloud.aiplatform.v1.JobService``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create_batch_prediction_job(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        job = sdk.BatchPredictionJob(request.batch_prediction_job)
        check_display_name(job.display_name)
        check_labels(job.labels)
        self.world.check_encryption(job.encryption_spec.kms_key_name)
        model = find_version(self.world, job.model)
        formats = ("jsonl", "csv", "bigquery", "tf-record", "tf-record-gzip", "file-list")
        if job.input_config.instances_format not in formats:
            raise Refusal("INVALID_ARGUMENT", f"instances_format must be one of {', '.join(formats)}.")
        if job.output_config.predictions_format not in ("jsonl", "csv", "bigquery"):
            raise Refusal("INVALID_ARGUMENT", "predictions_format must be one of jsonl, csv, bigquery.")
        if not job.input_config.gcs_source.uris:
            raise Refusal("INVALID_ARGUMENT", "input_config.source is required.")
        if not job.output_config.gcs_destination.output_uri_prefix.startswith("gs://"):
            raise Refusal("INVALID_ARGUMENT", "output_uri_prefix must begin with gs://.")
        check_machine(self.world, job.dedicated_resources.machine_spec, required=True)
        job.model, job.model_version_id = model.name, model.version_id
        job.name = f"{self.world.parent}/batchPredictionJobs/{self.world.number_for()}"
        job.state, job.create_time = _STATE.JOB_STATE_PENDING, now()
        self.world.batches[job.name] = job
        return job

    def get_batch_prediction_job(self, request: Any) -> Any:
        job = self._job(request.name)
        told = sdk.BatchPredictionJob(job)
        if job.state == _STATE.JOB_STATE_PENDING:
            job.state, job.start_time = _STATE.JOB_STATE_RUNNING, now()
        elif job.state == _STATE.JOB_STATE_RUNNING:
            self._finish(job)
        elif job.state == _STATE.JOB_STATE_CANCELLING:
            job.state, job.end_time = _STATE.JOB_STATE_CANCELLED, now()
        return told

    def list_batch_prediction_jobs(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        found = matching(self.world.batches.values(), request.filter, ("display_name",))
        found.sort(key=lambda job: job.create_time, reverse=True)
        shown, token = page(found, request.page_size, request.page_token)
        return sdk.ListBatchPredictionJobsResponse(batch_prediction_jobs=shown, next_page_token=token)

    def cancel_batch_prediction_job(self, request: Any) -> Any:
        job = self._job(request.name)
        if job.state in _ENDED:
            raise Refusal("FAILED_PRECONDITION", f"The job is in state {job.state.name}.")
        job.state = _STATE.JOB_STATE_CANCELLING
        return empty_pb2.Empty()

    def _job(self, name: str) -> Any:
        self.world.check_name(name, "batchPredictionJobs")
        if name not in self.world.batches:
            raise Refusal("NOT_FOUND", f"The BatchPredictionJob {name} does not exist.")
        return self.world.batches[name]

    def _finish(self, job: Any) -> None:
        job.end_time = now()
        rows = []
        for uri in job.input_config.gcs_source.uris:
            bucket, name = re.fullmatch(r"gs://([^/]+)/(.+)", uri).groups()
            if (content := self.world.objects.get((bucket, name))) is None:
                job.state = _STATE.JOB_STATE_FAILED
                job.error.code, job.error.message = 5, f"The input file {uri} does not exist."
                return
            rows += [json.loads(line) for line in content.decode().splitlines() if line.strip()]
        prefix = job.output_config.gcs_destination.output_uri_prefix.rstrip("/")
        job.output_info.gcs_output_directory = f"{prefix}/prediction-{job.name.rsplit('/', 1)[-1]}"
        bucket, name = re.fullmatch(r"gs://([^/]+)/(.+)", job.output_info.gcs_output_directory).groups()
        lines = [json.dumps({"instance": row, "prediction": {"probability": 0.5}}) for row in rows]
        results = ("\n".join(lines) + "\n").encode()
        self.world.objects[bucket, f"{name}/prediction.results-00000-of-00001"] = results
        job.completion_stats.successful_count = len(rows)
        job.state = _STATE.JOB_STATE_SUCCEEDED
