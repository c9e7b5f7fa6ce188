"""The machines of Vertex AI's training that have accelerators of their own, and what can be attached to others.

Source: https://cloud.google.com/vertex-ai/docs/training/configure-compute
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

TPU: Final = "TPU_V5_LITEPOD"
"""TPU v5e, as the service calls it."""
ATTACHABLE: Final[Mapping[str, tuple[int, ...]]] = {
    "NVIDIA_TESLA_T4": (1, 2, 4),
    "NVIDIA_TESLA_P4": (1, 2, 4),
    "NVIDIA_TESLA_P100": (1, 2, 4),
    "NVIDIA_TESLA_V100": (1, 2, 4, 8),
}
"""GPUs that n1 machines can have, and how many of them."""
_BUILT_IN: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "a2-highgpu": ("NVIDIA_TESLA_A100", (1, 2, 4, 8)),
    "a2-megagpu": ("NVIDIA_TESLA_A100", (16,)),
    "a2-ultragpu": ("NVIDIA_A100_80GB", (1, 2, 4, 8)),
    "a3-highgpu": ("NVIDIA_H100_80GB", (1, 2, 4, 8)),
    "a3-megagpu": ("NVIDIA_H100_MEGA_80GB", (8,)),
    "a3-ultragpu": ("NVIDIA_H200_141GB", (8,)),
    "a4-highgpu": ("NVIDIA_B200", (8,)),
    "a4x-highgpu": ("NVIDIA_GB200", (4,)),
}
_L4: Final[Mapping[str, int]] = {"4": 1, "8": 1, "12": 1, "16": 1, "24": 2, "32": 1, "48": 4, "96": 8}
_RTX: Final[Mapping[str, int]] = {"48": 1, "96": 2, "192": 4, "384": 8}
TOPOLOGIES: Final[Mapping[str, str]] = {
    "ct5lp-hightpu-1t": "1x1",
    "ct5lp-hightpu-4t": "2x2",
    "ct5lp-hightpu-8t": "2x4",
}
"""The machines with TPU v5e, and the topology of each alone.

Larger slices, ``ct5lp-hightpu-4t`` with ``4x4`` say, are of several machines, of which TensorFlow would reach the chips
of one only: each machine would train a model of its own, so none is offered. Vertex AI has none on spot machines.
Source: https://cloud.google.com/tpu/docs/v5e
"""


def built_in(machine: str) -> tuple[str, int] | None:
    """Returns the accelerators that a machine type always has, or None if it has none or doesn't exist."""
    if match := re.fullmatch(r"(a\d\w?-\w+gpu)-(\d+)g", machine):
        kind, counts = _BUILT_IN.get(match[1], ("", ()))
        return (kind, int(match[2])) if int(match[2]) in counts else None
    if match := re.fullmatch(r"(g2|g4)-standard-(\d+)", machine):
        count = (_L4 if match[1] == "g2" else _RTX).get(match[2])
        return ("NVIDIA_L4" if match[1] == "g2" else "NVIDIA_RTX_PRO_6000", count) if count else None
    return None


def is_tpu(machine: str) -> bool:
    return machine.startswith(("ct", "cloud-tpu"))
