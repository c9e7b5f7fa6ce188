"""How the steps of a training are divided over devices and machines: which of TensorFlow's strategies, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tidemill.errors import PlatformError, ProblemError
from tidemill.train.place import ALONE, Place
from tidemill.training import Strategy

_WHERE = "training.strategy"
# One of each per process: a second one would number its collective operations as the first one did, and TensorFlow
# mistakes them for one another.
_made: dict[str, tf.distribute.Strategy] = {}


@dataclass(frozen=True)
class Distribution:
    """A strategy with what the loop has to know of it.

    Attributes:
        name: as ``training.strategy`` calls it, never ``auto``.
        strategy: TensorFlow's.
        place: this worker's.
    """

    name: str
    strategy: tf.distribute.Strategy
    place: Place = ALONE

    @property
    def replicas(self) -> int:
        """Replicas of all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def local_replicas(self) -> int:
        """Replicas of this worker; each has as many."""
        return self.replicas // self.place.workers

    def batch_size(self, batch_size: int, per_replica: int | None) -> int:
        """Returns the examples per step over all replicas.

        Args:
            batch_size: as the problem sets it, of all replicas.
            per_replica: or of each.

        Raises:
            ProblemError: if the batch can't be divided into equal parts.
        """
        if per_replica is not None:
            return per_replica * self.replicas
        if batch_size % self.replicas:
            below = batch_size // self.replicas * self.replicas
            near = " or ".join(str(size) for size in (below, below + self.replicas) if size)
            raise ProblemError(
                "training.batch_size",
                f"must be a multiple of the {self.replicas} replicas, which share it",
                str(batch_size),
                f"take {near}, or set training.per_replica_batch_size instead",
            )
        return batch_size


def distribute(name: Strategy, place: Place) -> Distribution:
    """Returns the distribution of that name, or for ``auto`` the one that fits what is there.

    Several workers in TF_CONFIG make it multi_worker_mirrored, else a TPU makes it tpu, else several GPUs make it
    mirrored. To be called before anything else of TensorFlow runs: collective operations are configured at the start.

    Raises:
        ProblemError: if the strategy doesn't fit the machine, or can't be had at all.
        PlatformError: if there should be a TPU and it doesn't answer.
    """
    if name == "parameter_server":
        raise ProblemError(
            _WHERE,
            "can't be parameter_server: its workers change the weights without waiting for each other, so no "
            "checkpoint is of one step and no killed training could be resumed as if nothing had happened; nor do "
            "Keras 3's models train under it",
            remedy="use multi_worker_mirrored, or auto",
        )
    chosen = _automatic(place) if name == "auto" else name
    if place.workers > 1 and chosen != "multi_worker_mirrored":
        raise ProblemError(
            _WHERE,
            f"must be auto or multi_worker_mirrored, as TF_CONFIG names {place.workers} workers",
            chosen,
            "each worker would train a model of its own",
        )
    makers = {"default": _default, "mirrored": _mirrored, "multi_worker_mirrored": _multi_worker, "tpu": _tpu}
    if chosen not in _made:
        _made[chosen] = makers[chosen](place)
    return Distribution(chosen, _made[chosen], place)


def _automatic(place: Place) -> str:
    if place.workers > 1:
        return "multi_worker_mirrored"
    if has_tpu():
        return "tpu"
    return "mirrored" if len(_physical("GPU")) > 1 else "default"


def has_tpu() -> bool:
    """Tells whether this machine has a TPU, or was told the name of one."""
    return bool(os.environ.get("TPU_NAME") or _physical("TPU"))


def _default(_: Place) -> tf.distribute.Strategy:
    return tf.distribute.get_strategy()


def _mirrored(_: Place) -> tf.distribute.Strategy:
    kind = "GPU" if _physical("GPU") else "CPU"
    devices = tf.config.list_logical_devices(kind)
    if len(devices) < 2:
        raise ProblemError(
            _WHERE,
            "can be mirrored only where a machine has two GPUs or more",
            f"{len(_physical('GPU'))} GPUs",
            "use auto, which takes what is there",
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _multi_worker(place: Place) -> tf.distribute.Strategy:
    if place.workers < 2:
        raise ProblemError(
            _WHERE,
            "can be multi_worker_mirrored only where TF_CONFIG names two workers or more",
            f"{place.workers}",
            "start several workers (`tidemill run --workers N`, or a target with a `training` section), or use auto",
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu(_: Place) -> tf.distribute.Strategy:
    if not has_tpu():
        raise ProblemError(
            _WHERE,
            "can be tpu only on a machine with a TPU, or with TPU_NAME set to one",
            f"{_names(_physical('GPU')) or 'CPUs alone'}",
            "use auto, which takes what is there",
        )
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise PlatformError(
            f"TPU {name}", "doesn't answer", f"{type(error).__name__}: {error}", "look whether it is up, then run again"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _physical(kind: str) -> Sequence[Any]:
    devices: Sequence[Any] = tf.config.list_physical_devices(kind)
    return devices


def _names(devices: Sequence[Any]) -> str:
    return ", ".join(device.name for device in devices)
