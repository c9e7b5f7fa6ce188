"""JobService, as far as it concerns custom jobs: what it refuses to make, and how a job goes on from look to look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2
from vertex_batches import Jobs
from vertex_world import Refusal, World, check_display_name, check_labels, matching, now, page

_STATE: Final = sdk.JobState
_STRATEGY: Final = sdk.Scheduling.Strategy
ENDED: Final = (_STATE.JOB_STATE_SUCCEEDED, _STATE.JOB_STATE_FAILED, _STATE.JOB_STATE_CANCELLED)
_WEEK_S: Final = 604_800
_POOLS: Final = 4
_ENVIRONMENT: Final = 100
_ANY: Final = ("NVIDIA_TESLA_T4", "NVIDIA_TESLA_V100", "NVIDIA_TESLA_P100", "NVIDIA_TESLA_P4")
# Of each family one or two: which accelerators a machine may have, and how many.
_MACHINES: Final[Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]] = {
    "n1-standard-4": (_ANY, (0, 1, 2, 4, 8)),
    "n1-standard-8": (_ANY, (0, 1, 2, 4, 8)),
    "n1-highcpu-16": (_ANY, (0, 1, 2, 4, 8)),
    "n2-standard-8": ((), (0,)),
    "e2-standard-4": ((), (0,)),
    "c2-standard-16": ((), (0,)),
    "g2-standard-8": (("NVIDIA_L4",), (1,)),
    "g2-standard-24": (("NVIDIA_L4",), (2,)),
    "a2-highgpu-1g": (("NVIDIA_TESLA_A100",), (1,)),
    "a2-highgpu-8g": (("NVIDIA_TESLA_A100",), (8,)),
    "a3-highgpu-8g": (("NVIDIA_H100_80GB",), (8,)),
    "ct5lp-hightpu-1t": ((), (0,)),
    "ct5lp-hightpu-4t": ((), (0,)),
    "ct5lp-hightpu-8t": ((), (0,)),
}
_SLICES: Final = {
    "ct5lp-hightpu-1t": {"1x1": 1},
    "ct5lp-hightpu-4t": {"2x2": 1, "2x4": 2, "4x4": 4, "4x8": 8, "8x8": 16, "8x16": 32, "16x16": 64},
    "ct5lp-hightpu-8t": {"2x4": 1},
}
_FLEXIBLE: Final = ("NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_A100_80GB", "NVIDIA_H100_80GB")


class CustomJobs(Jobs):
    """Answers for custom jobs, and for batch predictions as `Jobs` does."""

    def create_custom_job(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        job = sdk.CustomJob(request.custom_job)
        check_custom_job(self.world, job)
        job.name = f"{self.world.parent}/customJobs/{self.world.number_for()}"
        job.state, job.create_time = _STATE.JOB_STATE_PENDING, now()
        self.world.custom_jobs[job.name] = job
        return job

    def get_custom_job(self, request: Any) -> Any:
        job = self._custom(request.name)
        self._advance(job)
        return job

    def list_custom_jobs(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        found = matching(self.world.custom_jobs.values(), request.filter, ("display_name",))
        shown, token = page(found, request.page_size, request.page_token)  # in no order that the API promises
        masked = [masked_job(job, request.read_mask.paths) for job in shown]
        return sdk.ListCustomJobsResponse(custom_jobs=masked, next_page_token=token)

    def cancel_custom_job(self, request: Any) -> Any:
        job = self._custom(request.name)
        if job.state in ENDED:
            raise Refusal("FAILED_PRECONDITION", f"The job is in state {job.state.name}.")
        job.state = _STATE.JOB_STATE_CANCELLING
        return empty_pb2.Empty()

    def _custom(self, name: str) -> Any:
        self.world.check_name(name, "customJobs")
        if name not in self.world.custom_jobs:
            raise Refusal("NOT_FOUND", f"The CustomJob {name} does not exist.")
        return self.world.custom_jobs[name]

    def _advance(self, job: Any) -> None:
        """Takes a job to what the next look will see: running, then what the test wants."""
        if job.state in ENDED:
            return
        if job.state == _STATE.JOB_STATE_CANCELLING:
            if not self.world.slow_cancellations:
                job.state, job.end_time = _STATE.JOB_STATE_CANCELLED, now()
        elif job.state == _STATE.JOB_STATE_PENDING:
            job.state, job.start_time = _STATE.JOB_STATE_RUNNING, now()
        elif not self.world.held:
            job.end_time = now()
            job.state = _STATE.JOB_STATE_SUCCEEDED
            if self.world.failing_jobs:
                job.state = _STATE.JOB_STATE_FAILED
                job.error.code, job.error.message = 3, self.world.failing_jobs.pop(0)


def check_custom_job(world: World, job: Any) -> None:
    """Refuses a CustomJob that the service would refuse to make."""
    check_display_name(job.display_name)
    check_labels(job.labels)
    world.check_encryption(job.encryption_spec.kms_key_name)
    check_job_spec(world, job.job_spec, job.encryption_spec.kms_key_name)


def check_job_spec(world: World, spec: Any, key: str) -> None:
    world.check_network(spec.network)
    pools = [pool for pool in spec.worker_pool_specs if pool.replica_count]
    if not spec.worker_pool_specs or len(spec.worker_pool_specs) > _POOLS:
        raise Refusal("INVALID_ARGUMENT", f"worker_pool_specs must have 1 to {_POOLS} entries.")
    if spec.worker_pool_specs[0].replica_count != 1:
        raise Refusal("INVALID_ARGUMENT", "The first worker pool must have replica_count 1.")
    for pool in pools:
        _check_pool(world, pool)
    if len(pools) > 1 and any(pool.machine_spec.machine_type in _SLICES for pool in pools):
        raise Refusal("INVALID_ARGUMENT", "A job with TPUs must have one worker pool, of replica_count 1.")
    if spec.service_account and not re.fullmatch(r"[^@\s]+@[^@\s]+\.gserviceaccount\.com", spec.service_account):
        raise Refusal("INVALID_ARGUMENT", f"The service account '{spec.service_account}' is invalid.")
    if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/.*)?", spec.base_output_directory.output_uri_prefix):
        raise Refusal("INVALID_ARGUMENT", "base_output_directory must be a gs:// path.")
    if spec.reserved_ip_ranges and not spec.network:
        raise Refusal("INVALID_ARGUMENT", "reserved_ip_ranges is set, and network isn't.")
    _check_tensorboard(world, spec)
    _check_scheduling(spec, pools)
    _check_servers(spec, pools)
    if spec.persistent_resource_id:
        _check_persistent(world, spec, pools, key)


def _check_pool(world: World, pool: Any) -> None:
    if not pool.container_spec.image_uri:
        raise Refusal("INVALID_ARGUMENT", "container_spec.image_uri is required.")
    if len(pool.container_spec.env) > _ENVIRONMENT:
        raise Refusal("INVALID_ARGUMENT", f"A container may have at most {_ENVIRONMENT} environment variables.")
    machine, kind = pool.machine_spec, pool.machine_spec.accelerator_type.name
    if machine.machine_type not in _MACHINES:
        raise Refusal("INVALID_ARGUMENT", f"Machine type '{machine.machine_type}' is not supported.")
    kinds, counts = _MACHINES[machine.machine_type]
    given = kind if machine.accelerator_count else ""
    if machine.accelerator_count not in counts or (given and given not in kinds):
        what = f"{machine.accelerator_count} x {kind}"
        raise Refusal("INVALID_ARGUMENT", f"{what} cannot be attached to machine type {machine.machine_type}.")
    if given in world.unavailable_accelerators:
        metric = f"CustomModelTraining{given.title().replace('_', '')}GPUsPerProjectPerRegion"
        raise Refusal("RESOURCE_EXHAUSTED", f"The following quotas are exceeded: {metric}")
    slices = _SLICES.get(machine.machine_type, {})
    if machine.tpu_topology and machine.tpu_topology not in slices:
        raise Refusal("INVALID_ARGUMENT", f"TPU topology '{machine.tpu_topology}' is not supported.")
    if slices and not machine.tpu_topology:
        raise Refusal("INVALID_ARGUMENT", f"tpu_topology is required for {machine.machine_type}.")
    if slices and pool.replica_count != 1:
        raise Refusal("INVALID_ARGUMENT", "A worker pool with TPUs must have replica_count 1.")
    _check_reservation(machine.reservation_affinity)


def _check_reservation(affinity: Any) -> None:
    kind = affinity.reservation_affinity_type.name
    if kind == "SPECIFIC_RESERVATION":
        if affinity.key != "compute.googleapis.com/reservation-name" or len(affinity.values) != 1:
            raise Refusal("INVALID_ARGUMENT", "A specific reservation needs its key and one value.")
        if not re.fullmatch(r"projects/[^/]+/zones/[^/]+/reservations/[^/]+", affinity.values[0]):
            raise Refusal("INVALID_ARGUMENT", f"The reservation '{affinity.values[0]}' is invalid.")


def _check_tensorboard(world: World, spec: Any) -> None:
    if not spec.tensorboard:
        return
    if not spec.service_account:
        raise Refusal("INVALID_ARGUMENT", "service_account is required when tensorboard is set.")
    if not re.fullmatch(rf"projects/[^/]+/locations/{world.region}/tensorboards/\d+", spec.tensorboard):
        raise Refusal("INVALID_ARGUMENT", f"The Tensorboard '{spec.tensorboard}' is not in {world.region}.")


def _check_scheduling(spec: Any, pools: list[Any]) -> None:
    scheduling, strategy = spec.scheduling, spec.scheduling.strategy
    reserved = [p for p in pools if p.machine_spec.reservation_affinity.reservation_affinity_type not in (0, 1)]
    if scheduling.timeout and scheduling.timeout.total_seconds() > _WEEK_S:
        raise Refusal("INVALID_ARGUMENT", "scheduling.timeout must be at most 604800s.")
    if strategy == _STRATEGY.SPOT:
        hosts = [_SLICES.get(p.machine_spec.machine_type, {}).get(p.machine_spec.tpu_topology, 1) for p in pools]
        if max(hosts) > 1:
            raise Refusal("INVALID_ARGUMENT", "Spot VMs are not supported with TPU Pods.")
        if reserved:
            raise Refusal("INVALID_ARGUMENT", "Spot VMs cannot consume reservations.")
    if strategy == _STRATEGY.FLEX_START:
        if any(p.machine_spec.accelerator_type.name not in _FLEXIBLE for p in pools[:1]):
            raise Refusal("INVALID_ARGUMENT", f"FLEX_START requires one of {', '.join(_FLEXIBLE)}.")
        if any(p.machine_spec != pools[0].machine_spec for p in pools):
            raise Refusal("INVALID_ARGUMENT", "FLEX_START requires the same machine spec in all worker pools.")
        if reserved:
            raise Refusal("INVALID_ARGUMENT", "FLEX_START cannot consume reservations.")
    elif scheduling.max_wait_duration:
        raise Refusal("INVALID_ARGUMENT", "max_wait_duration is supported with FLEX_START only.")


def _check_servers(spec: Any, pools: list[Any]) -> None:
    places = [n for n, p in enumerate(spec.worker_pool_specs) if "reductionserver" in p.container_spec.image_uri]
    if places and places != [2]:
        raise Refusal("INVALID_ARGUMENT", "Reduction Server is the third worker pool, and needs a second worker pool.")
    if places and not all(p.machine_spec.accelerator_count for p in pools[:2]):
        raise Refusal("INVALID_ARGUMENT", "Reduction Server requires workers with GPUs.")


def _check_persistent(world: World, spec: Any, pools: list[Any], key: str) -> None:
    if spec.persistent_resource_id not in world.persistent_resources:
        raise Refusal("NOT_FOUND", f"The PersistentResource {spec.persistent_resource_id} does not exist.")
    if (spec.network, key) != world.persistent_resources[spec.persistent_resource_id]:
        raise Refusal("INVALID_ARGUMENT", "network and CMEK must be those of the PersistentResource.")
    if spec.scheduling.strategy not in (_STRATEGY.STRATEGY_UNSPECIFIED, _STRATEGY.STANDARD):
        raise Refusal("INVALID_ARGUMENT", "A job on a PersistentResource has no scheduling strategy.")
    if any(p.machine_spec.machine_type in _SLICES for p in pools):
        raise Refusal("INVALID_ARGUMENT", "PersistentResources do not support TPUs.")
    if any(p.machine_spec.reservation_affinity.reservation_affinity_type not in (0, 1) for p in pools):
        raise Refusal("INVALID_ARGUMENT", "A job on a PersistentResource cannot consume reservations.")


def masked_job(job: Any, paths: Any) -> Any:
    """Returns the fields of a job that a list shows."""
    kind = type(job)
    if unknown := [path for path in paths if path not in kind.meta.fields]:
        raise Refusal("INVALID_ARGUMENT", f"Invalid field mask path: '{unknown[0]}'.")
    shown = kind(job)
    for name in kind.meta.fields:
        if paths and name not in paths:
            kind.pb(shown).ClearField(name)
    return shown
