"""The sizes of machine types, which their names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_GB_PER_CORE: Final[Mapping[str, Mapping[str, float]]] = {
    "n1": {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9},
    "n2": {"standard": 4, "highmem": 8, "highcpu": 1},
    "c2": {"standard": 4},
    "c3": {"standard": 4, "highmem": 8, "highcpu": 2},
}


def machine_size(machine: str) -> tuple[int, float] | None:
    """Returns processors and GB of memory of a Google Compute Engine machine type, or None if its name doesn't tell.

    Source: https://cloud.google.com/compute/docs/general-purpose-machines
    """
    found = re.fullmatch(r"(n1|n2|n2d|e2|c2|c3)-(standard|highmem|highcpu)-(\d+)", machine)
    if found is None or found[2] not in _GB_PER_CORE.get(found[1], _GB_PER_CORE["n2"]):
        return None
    series, shape, cores = found[1], found[2], int(found[3])
    per_core = _GB_PER_CORE.get(series, _GB_PER_CORE["n2"])
    return cores, cores * per_core[shape]
