"""What the fake knows, the ways in which it refuses, and what all its services share."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2

LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
MACHINES: Final = {
    # What prediction takes, of each family one or two, and whether accelerators can be attached.
    "n1-standard-2": True,
    "n1-standard-4": True,
    "n1-standard-8": True,
    "n1-highmem-2": True,
    "n2-standard-2": False,
    "n2-standard-8": False,
    "e2-standard-2": False,
    "e2-standard-4": False,
    "c2-standard-4": False,
    "c3-standard-4": False,
    "g2-standard-4": True,
    "a2-highgpu-1g": True,
}


class Refusal(Exception):
    """The service's answer to a call that it doesn't do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = getattr(grpc.StatusCode, code)
        self.message = message


@dataclass
class Scripted:
    """A refusal that a test asked for: the next ``times`` calls of ``method`` fail so.

    Attributes:
        done: whether the call is done nevertheless, as when a connection breaks on the way back.
    """

    method: str
    code: str
    message: str
    times: int
    done: bool = False


@dataclass
class World:
    """The fake's whole state, and the lock that every call holds.

    Attributes:
        wrong: model resource name with version (``…@2``) to how its server misbehaves: ``wrong`` or ``failing``.
        held: whether jobs stay as they are when they have begun to run.
        job_limit: pipeline jobs that may run at once.
        failing_tasks: task name to the error that it ends with, in jobs that are made from now on.
        slow_cancellations: whether custom jobs that are cancelled stay so for now.
        failing_jobs: the errors that the next custom jobs end with.
        failing_trials: ids of those that report no objective.
        persistent_resources: network and key of each, by its id.
        logs: Cloud Logging's entries by the job's number.
        log_refusals: status, code and message of the next answers of Cloud Logging.
        unavailable_accelerators: those that the project has no quota for.
        hosts: file in the form of ``/etc/hosts`` that the hosts of dedicated endpoints are written to.
    """

    project: str
    number: str
    region: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    requests: list[dict[str, Any]] = field(default_factory=list)
    scripted: list[Scripted] = field(default_factory=list)
    jobs: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    schedules: dict[str, Any] = field(default_factory=dict)
    models: dict[str, list[Any]] = field(default_factory=dict)
    endpoints: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    batches: dict[str, Any] = field(default_factory=dict)
    custom_jobs: dict[str, Any] = field(default_factory=dict)
    tunings: dict[str, Any] = field(default_factory=dict)
    slow_cancellations: bool = False
    failing_jobs: list[str] = field(default_factory=list)
    failing_trials: set[str] = field(default_factory=set)
    persistent_resources: dict[str, tuple[str, str]] = field(default_factory=dict)
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    log_refusals: list[tuple[int, str, str]] = field(default_factory=list)
    operations: dict[str, tuple[operations_pb2.Operation, int]] = field(default_factory=dict)
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    buckets: set[str] = field(default_factory=lambda: {"example-bucket"})
    forbidden_buckets: set[str] = field(default_factory=lambda: {"foreign-bucket"})
    wrong: dict[str, str] = field(default_factory=dict)
    held: bool = False
    job_limit: int = 100
    failing_tasks: dict[str, str] = field(default_factory=dict)
    unavailable_accelerators: set[str] = field(default_factory=lambda: {"NVIDIA_A100_80GB"})
    slow_operations: int = 0
    http: str = ""
    hosts: str = ""
    serial: int = 1000

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    def number_for(self) -> str:
        """Returns the next id, as long as the service's."""
        self.serial += 1
        return f"{self.serial:0>10}".replace("0", "4", 1)

    def check_parent(self, parent: str) -> None:
        """Refuses what isn't the one location that this service holds."""
        match = re.fullmatch(r"projects/([^/]+)/locations/([^/]+)", parent)
        if match is None:
            raise Refusal("INVALID_ARGUMENT", f"Invalid resource name: '{parent}'; expected projects/*/locations/*.")
        if match.group(2) != self.region:
            expected = f"The request was sent to {self.region}, and is for '{match.group(2)}'."
            raise Refusal("INVALID_ARGUMENT", f"Location mismatch. {expected}")
        if match.group(1) not in (self.project, self.number):
            denied = f"Permission 'aiplatform.locations.get' denied on resource '//aiplatform.googleapis.com/{parent}'"
            raise Refusal("PERMISSION_DENIED", f"{denied} (or it may not exist).")

    def check_name(self, name: str, collection: str) -> str:
        """Refuses a malformed resource name, and returns its last part."""
        match = re.fullmatch(rf"(projects/[^/]+/locations/[^/]+)/{collection}/([^/]+)", name)
        if match is None:
            raise Refusal("INVALID_ARGUMENT", f"Invalid resource name: '{name}'.")
        self.check_parent(match.group(1))
        return match.group(2)

    def check_encryption(self, key: str) -> None:
        if not key:
            return
        form = r"projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+"
        if (match := re.fullmatch(form, key)) is None:
            raise Refusal("INVALID_ARGUMENT", f"The KMS key name '{key}' is invalid.")
        if match.group(1) != self.region:
            raise Refusal("INVALID_ARGUMENT", f"The KMS key must be in {self.region}; it is in {match.group(1)}.")

    def check_network(self, network: str) -> None:
        if network and not re.fullmatch(r"projects/\d+/global/networks/[a-z]([-a-z0-9]*[a-z0-9])?", network):
            expected = "expected projects/<project number>/global/networks/<name>"
            raise Refusal("INVALID_ARGUMENT", f"The network '{network}' is invalid: {expected}.")

    def operate(self, name: str, metadata: Any, response: Any) -> operations_pb2.Operation:
        """Returns a long-running operation that is done when it is looked at again."""
        operation = operations_pb2.Operation(name=f"{name}/operations/{self.number_for()}")
        operation.metadata.CopyFrom(packed(metadata))
        done = operations_pb2.Operation()
        done.CopyFrom(operation)
        done.done = True
        done.response.CopyFrom(packed(response))
        self.operations[operation.name] = (done, self.slow_operations)
        return operation

    def fail(self, name: str, metadata: Any, code: str, message: str) -> operations_pb2.Operation:
        """Returns a long-running operation that ends with an error."""
        operation = self.operate(name, metadata, metadata)
        done, looks = self.operations[operation.name]
        done.ClearField("response")
        done.error.code, done.error.message = code_pb2.Code.Value(code), message
        self.operations[operation.name] = (done, looks)
        return operation

    def look(self, name: str) -> operations_pb2.Operation:
        """Returns an operation, one step further than at the last look."""
        if name not in self.operations:
            raise Refusal("NOT_FOUND", f"Operation {name} does not exist.")
        done, looks = self.operations[name]
        if looks == 0:
            return done
        self.operations[name] = (done, looks - 1)
        running = operations_pb2.Operation(name=name)
        running.metadata.CopyFrom(done.metadata)
        return running


def packed(message: Any) -> any_pb2.Any:
    """Returns a message of the SDK, or of protobuf itself, as an Any."""
    value = any_pb2.Any()
    value.Pack(type(message).pb(message) if hasattr(type(message), "pb") else message)
    return value


def now() -> datetime:
    return datetime.now(UTC)


def check_labels(labels: Any) -> None:
    if len(labels) > 64:
        raise Refusal("INVALID_ARGUMENT", f"There are {len(labels)} labels; at most 64 are allowed.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            allowed = "lowercase letters, numeric characters, underscores and dashes"
            raise Refusal("INVALID_ARGUMENT", f"Label '{key}: {value}' is invalid: at most 63 {allowed}.")


def check_display_name(name: str) -> None:
    if not name or len(name) > 128:
        raise Refusal("INVALID_ARGUMENT", "display_name must have 1 to 128 characters.")


def check_machine(world: World, machine: Any, required: bool) -> None:
    """Refuses machines and accelerators that don't exist, don't fit together, or aren't in the quota."""
    if not machine.machine_type:
        if required:
            raise Refusal("INVALID_ARGUMENT", "machine_type is required.")
        return
    if machine.machine_type not in MACHINES:
        raise Refusal("INVALID_ARGUMENT", f"Machine type '{machine.machine_type}' is not supported.")
    accelerator = machine.accelerator_type.name
    if accelerator == "ACCELERATOR_TYPE_UNSPECIFIED":
        if machine.accelerator_count:
            raise Refusal("INVALID_ARGUMENT", "accelerator_count is set, and accelerator_type isn't.")
        return
    if not MACHINES[machine.machine_type] or machine.accelerator_count not in (1, 2, 4, 8):
        what = f"{machine.accelerator_count} x {accelerator}"
        raise Refusal("INVALID_ARGUMENT", f"{what} cannot be attached to machine type {machine.machine_type}.")
    if accelerator in world.unavailable_accelerators:
        metric = f"CustomModelServing{accelerator.title().replace('_', '')}GPUsPerProjectPerRegion"
        raise Refusal("RESOURCE_EXHAUSTED", f"The following quotas are exceeded: {metric}")


def matching(items: Iterable[Any], condition: str, fields: Iterable[str]) -> list[Any]:
    """Returns the items that a filter lets through.

    Knows ``field="value"``, ``labels.key="value"``, ``field:*`` and their conjunction; refuses all else.
    """
    known = tuple(fields)
    clauses = [_clause(clause, known) for clause in re.split(r"\s+AND\s+", condition.strip()) if clause]
    return [item for item in items if all(clause(item) for clause in clauses)]


def _clause(clause: str, fields: tuple[str, ...]) -> Callable[[Any], bool]:
    if match := re.fullmatch(r"(\w+):\*", clause):
        name = match.group(1)
        if name in fields:
            return lambda item: name in item
    if match := re.fullmatch(r'labels\.([\w-]+)\s*=\s*"?([^"]*)"?', clause):
        key, value = match.groups()
        return lambda item: item.labels.get(key) == value
    if match := re.fullmatch(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"', clause):
        name, text = match.group(1), re.sub(r"\\(.)", r"\1", match.group(2))
        if name in fields:
            return lambda item: getattr(item, name) == text
    raise Refusal("INVALID_ARGUMENT", f"Invalid filter: '{clause}'.")


def page(items: list[Any], size: int, token: str, most: int = 100) -> tuple[list[Any], str]:
    """Returns one page of a list, and the token of the next."""
    if token and not token.isdecimal():
        raise Refusal("INVALID_ARGUMENT", f"Invalid page token: '{token}'.")
    begin, count = int(token or 0), min(size or most, most)
    end = begin + count
    return items[begin:end], str(end) if end < len(items) else ""
