"""What a run costs, estimated from the prices that a user gives.

It is an estimate: storage, networks, a task's wait for its machine and a backend's own fees are not in it. A task whose
result was reused costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import Field

from tidemill.errors import ProblemError, UsageError
from tidemill.features import Strict
from tidemill.runs import RunRecord, TaskRecord
from tidemill.strict_yaml import validated

_HOUR_S: Final = 3600.0
_MIB_PER_GIB: Final = 1024.0


class Prices(Strict):
    """Prices per hour. Where a machine's own price isn't given, its processors and memory make one."""

    currency: str = Field(default="USD", min_length=1)
    cpu_hour: float = Field(default=0.0, ge=0, description="A processor for an hour.")
    gib_hour: float = Field(default=0.0, ge=0, description="A GiB of memory for an hour.")
    machines: Mapping[str, float] = Field(default={}, description="By machine type: `n2-standard-8: 0.39`.")
    accelerators: Mapping[str, float] = Field(default={}, description="One accelerator, by type.")
    spot: float = Field(default=1.0, gt=0, le=1, description="Share of its price that a spot machine costs.")


class PricesError(ProblemError):
    """A table of prices is not valid."""


@dataclass(frozen=True)
class Tariff:
    """What a run's tasks are priced by.

    Attributes:
        cpu_hour: a processor for an hour.
        gib_hour: a GiB of memory for an hour.
        hourly: price of an hour of each task's machines, by task; None where a price is missing. Empty on this
            machine, where a task pays for the processor time and the memory that it used.
    """

    currency: str
    cpu_hour: float = 0.0
    gib_hour: float = 0.0
    hourly: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a run costs by estimate.

    Attributes:
        total: of the tasks that have a price.
        tasks: by name of task.
        unpriced: tasks that ran and have no price.
    """

    currency: str
    total: float
    tasks: Mapping[str, float]
    unpriced: tuple[str, ...] = ()


def load_prices(path: Path) -> Prices:
    """Reads a table of prices.

    Raises:
        UsageError: if there is no such file.
        PricesError: naming every fault with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(str(path), "cannot be read as a table of prices", str(error)) from error
    return validated(Prices, text, str(path), PricesError, "expected a mapping with cpu_hour, gib_hour or machines")


def estimate(tasks: Sequence[TaskRecord], tariff: Tariff) -> Cost:
    """Returns what the tasks cost, those that failed included."""
    priced, unpriced = dict[str, float](), []
    for task in tasks:
        amount = 0.0 if task.status == "cached" else _amount(task, tariff)
        if amount is None:
            unpriced.append(task.name)
        else:
            priced[task.name] = amount
    return Cost(tariff.currency, sum(priced.values()), priced, tuple(unpriced))


def run_cost(run: RunRecord, tasks: Sequence[TaskRecord]) -> Cost | None:
    """Returns what a run costs, or None where nobody gave prices."""
    return None if run.tariff is None else estimate(tasks, Tariff(**run.tariff))


def _amount(task: TaskRecord, tariff: Tariff) -> float | None:
    if tariff.hourly:
        rate = tariff.hourly.get(task.iteration_of or task.name)
        return None if rate is None else rate * task.wall_s / _HOUR_S
    memory = tariff.gib_hour * (task.peak_rss_mb / _MIB_PER_GIB) * task.wall_s
    return (tariff.cpu_hour * task.cpu_s + memory) / _HOUR_S
