"""How well a training used the machine that it ran on."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import tensorflow as tf

_QUERY: Final = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Efficiency:
    """What this process found since it started; a training that was resumed has it of its last try.

    Attributes:
        step_ms: milliseconds per step, its share of what lies between steps included, mean over the steps.
        step_ms_p95: the time per step that 95 % of the calls of TensorFlow stay below.
        input_bound_share: share of the time in which the loop waited for rows.
        peak_memory_mb: largest resident memory of the process.
        accelerators: names of this worker's.
        accelerator_memory_mb: largest memory in use on one of them.
        accelerator_utilisation: mean share of the time in which they computed; None where nothing tells it.
    """

    step_ms: float
    step_ms_p95: float
    input_bound_share: float
    peak_memory_mb: float
    accelerators: tuple[str, ...]
    accelerator_memory_mb: float | None
    accelerator_utilisation: float | None


@dataclass
class Meter:
    """Takes the time of a training's loop."""

    _calls: list[tuple[float, int]] = field(default_factory=list)
    _waited: float = 0.0
    _utilisation: list[float] = field(default_factory=list)

    def waited(self, seconds: float) -> None:
        """Adds time in which the loop waited for rows."""
        self._waited += seconds

    def called(self, seconds: float, steps: int) -> None:
        """Adds a call of TensorFlow and the steps that were taken in it."""
        self._calls.append((seconds, steps))

    def look(self) -> None:
        """Asks the accelerators how busy they were; to be called when they just were."""
        if tf.config.list_physical_devices("GPU") and (found := gpu_utilisation(_QUERY)) is not None:
            self._utilisation.append(found)

    def efficiency(self) -> Efficiency:
        seconds, steps = (np.array(column) for column in zip(*self._calls or [(0.0, 1)], strict=True))
        per_step = np.sort(seconds / steps)
        total = float(seconds.sum()) + self._waited
        accelerators = [*tf.config.list_logical_devices("GPU"), *tf.config.list_logical_devices("TPU")]
        return Efficiency(
            step_ms=1000 * total / int(steps.sum()),
            step_ms_p95=1000 * float(per_step[int(np.ceil(0.95 * len(per_step))) - 1]),
            input_bound_share=self._waited / max(total, 1e-9),
            peak_memory_mb=_peak_memory_mb(),
            accelerators=tuple(_name(device) for device in accelerators),
            accelerator_memory_mb=_accelerator_memory_mb(),
            accelerator_utilisation=float(np.mean(self._utilisation)) if self._utilisation else None,
        )


def gpu_utilisation(command: tuple[str, ...]) -> float | None:
    """Returns the mean share of the last moments in which the GPUs computed, or None if nobody tells.

    Args:
        command: prints a line per GPU with its utilisation in percent.
    """
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return float(np.mean([float(line) for line in told.split()])) / 100 if told.strip() else None
    except (OSError, subprocess.SubprocessError, ValueError):  # no such tool, or a GPU that doesn't say ("[N/A]")
        return None


def _name(device: tf.config.LogicalDevice) -> str:
    physical = tf.config.list_physical_devices(device.device_type)
    index = int(device.name.rpartition(":")[2])
    details = tf.config.experimental.get_device_details(physical[index]) if index < len(physical) else {}
    return str(details.get("device_name", device.device_type))


def _accelerator_memory_mb() -> float | None:
    devices = tf.config.list_logical_devices("GPU")
    peaks = [tf.config.experimental.get_memory_info(device.name)["peak"] for device in devices]
    return max(peaks) / 2**20 if peaks else None


def _peak_memory_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024
