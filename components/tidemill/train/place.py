"""Which of several workers this process is, known before TensorFlow is imported."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.errors import UsageError


@dataclass(frozen=True)
class Place:
    """This process among the workers of a training.

    Attributes:
        worker: its number; 0 is the chief, which alone writes.
        workers: how many there are.
    """

    worker: int = 0
    workers: int = 1

    @property
    def chief(self) -> bool:
        return self.worker == 0

    @property
    def salt(self) -> tuple[int, ...]:
        """What a worker adds to a seed, so that no two draw the same; nothing where there is one."""
        return (self.workers, self.worker) if self.workers > 1 else ()

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """Returns the place that TF_CONFIG gives, or that of one process alone.

        Workers are numbered as TensorFlow numbers them: a `chief` first, then those named `worker`.

        Raises:
            UsageError: if TF_CONFIG can't be understood.
        """
        text = environment.get("TF_CONFIG")
        if not text:
            return cls()
        try:
            config = json.loads(text)
            cluster, task = config.get("cluster", {}), config.get("task", {})
            names = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
            if not names:
                return cls()
            return cls(names.index((task["type"], int(task["index"]))), len(names))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                "TF_CONFIG",
                "must be JSON with a cluster of `worker` addresses, `chief` if there is one, and this process's task",
                f"{type(error).__name__}: {error}: {text[:200]}",
            ) from error


ALONE = Place()
