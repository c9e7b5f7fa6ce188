"""What an hour of a stage's machines costs on a target, by the prices of the target's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from tidemill.costs import Prices
from tidemill.vertex.training import VertexTraining
from tidemill_pipelines.targets.config import KubernetesTraining, TargetConfig
from tidemill_pipelines.targets.machines import machine_size

_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_GIB: Final = 2**30


class _Accelerator(Protocol):
    @property
    def type(self) -> str: ...

    @property
    def count(self) -> int: ...


def stage_rate(stage: str, target: TargetConfig, prices: Prices) -> float | None:
    """Returns the price of an hour of a stage, with the nodes of its training job where it has one.

    None where the prices don't tell it.
    """
    if stage == "tune" and isinstance(target.training, VertexTraining) and target.training.managed_tuning:
        return None  # its trials run side by side on machines of their own, each for a time that nobody tells
    settings = target.stage(stage)
    own = _rate(settings.machine, settings.cpu, settings.memory, settings.accelerator, bool(settings.spot), prices)
    if stage != "train" or target.training is None:
        return own
    return _total([own, _job_rate(target.training, prices)])


def _job_rate(job: VertexTraining | KubernetesTraining, prices: Prices) -> float | None:
    if isinstance(job, KubernetesTraining):
        each = _rate(job.machine, job.cpu, job.memory, job.accelerator, job.spot, prices)
        return None if each is None else each * job.workers
    spot = job.strategy == "spot"
    parts = [_rate(job.machine, None, None, job.accelerator, spot, prices)] * job.workers
    if server := job.reduction_server:
        parts += [_rate(server.machine, None, None, None, spot, prices)] * server.replicas
    return _total(parts)


def _rate(
    machine: str | None,
    cpu: str | None,
    memory: str | None,
    accelerator: _Accelerator | None,
    spot: bool,
    prices: Prices,
) -> float | None:
    parts = [_machine_rate(machine, cpu, memory, prices)]
    if accelerator is not None:
        each = prices.accelerators.get(accelerator.type)
        parts.append(None if each is None else each * accelerator.count)
    total = _total(parts)
    return total * prices.spot if total is not None and spot else total


def _total(parts: Sequence[float | None]) -> float | None:
    """Returns the sum of prices, or None if one of them is missing."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _machine_rate(machine: str | None, cpu: str | None, memory: str | None, prices: Prices) -> float | None:
    if machine is not None and machine in prices.machines:
        return prices.machines[machine]
    size = machine_size(machine) if machine is not None else None
    if size is not None:
        cores, gib = float(size[0]), size[1] * 1e9 / _GIB
    elif cpu is not None and memory is not None:
        cores, gib = _amount(cpu), _amount(memory) / _GIB
    else:
        return None
    priced = prices.cpu_hour > 0 or prices.gib_hour > 0
    return cores * prices.cpu_hour + gib * prices.gib_hour if priced else None


def _amount(quantity: str) -> float:
    """Returns a quantity of Kubernetes as a number: ``500m`` is 0.5, ``16Gi`` is 2**34."""
    if quantity.endswith("m"):
        return float(quantity[:-1]) / 1000
    for unit, factor in _UNITS.items():
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    return float(quantity)
