"""What an hour of a stage's machines costs on a target, by the prices of the target's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from tidemill.costs import Prices
from tidemill_pipelines.targets.config import Accelerator
from tidemill_pipelines.targets.machines import machine_size

_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_GIB: Final = 2**30


class Machine(Protocol):
    """What a stage or a node of a training job runs on."""

    @property
    def machine(self) -> str | None: ...

    @property
    def accelerator(self) -> Accelerator | None: ...

    @property
    def spot(self) -> bool | None: ...

    @property
    def cpu(self) -> str | None: ...

    @property
    def memory(self) -> str | None: ...


def hourly_rate(of: Machine, prices: Prices) -> float | None:
    """Returns the price of an hour on a machine, or None where the prices don't tell it."""
    parts = [_machine_rate(of, prices)]
    if of.accelerator is not None:
        each = prices.accelerators.get(of.accelerator.type)
        parts.append(None if each is None else each * of.accelerator.count)
    total = total_of(parts)
    return total * prices.spot if total is not None and of.spot else total


def job_rate(of: Machine, workers: int, prices: Prices) -> float | None:
    """Returns the price of an hour of a training job's nodes."""
    each = hourly_rate(of, prices)
    return None if each is None else each * workers


def total_of(parts: Sequence[float | None]) -> float | None:
    """Returns the sum of prices, or None if one of them is missing."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _machine_rate(of: Machine, prices: Prices) -> float | None:
    if of.machine is not None and of.machine in prices.machines:
        return prices.machines[of.machine]
    size = machine_size(of.machine) if of.machine is not None else None
    if size is not None:
        cores, gib = float(size[0]), size[1] * 1e9 / _GIB
    elif of.cpu is not None and of.memory is not None:
        cores, gib = _amount(of.cpu), _amount(of.memory) / _GIB
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
