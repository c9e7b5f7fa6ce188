"""What Dataflow is told of the workers of the Beam stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from tidemill.errors import UsageError

_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class DataflowSettings:
    """How the Beam stages run on Dataflow.

    Attributes:
        project: id of the project that pays.
        region: where the workers run.
        temp_location: ``gs://`` directory through which the stages and their workers hand each other files.
        image: the ``tensorflow`` image, which is the workers' too, by digest.
        service_account: what the workers act as; the project's default one if not given.
        machine_type: of a worker.
        workers: how many there are at the beginning.
        max_workers: how many there may be; with ``autoscaling`` off, ``workers`` are all there are.
        autoscaling: whether Dataflow changes their number with the work.
        public_ips: whether workers have addresses of their own. Without, the subnetwork needs Private Google Access.
        subnetwork: ``regions/<region>/subnetworks/<name>``, or its whole address for a shared network.
        cmek_key: name of the key that everything is encrypted with.
        labels: for cost, on the jobs and their machines.
    """

    project: str
    region: str
    temp_location: str
    image: str
    service_account: str | None = None
    machine_type: str | None = None
    workers: int | None = None
    max_workers: int = 10
    autoscaling: bool = True
    public_ips: bool = False
    subnetwork: str | None = None
    cmek_key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def dataflow_flags(settings: DataflowSettings) -> list[str]:
    """Returns Beam's flags for settings; the stage that gets them has the SDK check them before it begins.

    Raises:
        UsageError: if the image's version may change under its name, or a label isn't one that Google Cloud takes.
    """
    if "@sha256:" not in settings.image:
        expected = "must be named by digest: workers that start later must run the same code"
        raise UsageError("beam image", expected, settings.image, "name it <registry>/tensorflow@sha256:…")
    labels = [f"{name}={value}" for name, value in sorted(settings.labels.items())]
    if wrong := [label for label in labels if not _LABEL.fullmatch(label)]:
        raise UsageError("beam labels", "must be of lower case letters, digits, _ and -", ", ".join(wrong))
    mode: Literal["THROUGHPUT_BASED", "NONE"] = "THROUGHPUT_BASED" if settings.autoscaling else "NONE"
    flags = {
        "project": settings.project,
        "region": settings.region,
        "temp_location": settings.temp_location,
        "sdk_container_image": settings.image,
        "sdk_location": "container",
        "service_account_email": settings.service_account,
        "machine_type": settings.machine_type,
        "num_workers": settings.workers,
        "max_num_workers": settings.max_workers if settings.autoscaling else settings.workers,
        "autoscaling_algorithm": mode,
        "subnetwork": settings.subnetwork,
        "dataflow_kms_key": settings.cmek_key,
    }
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    address = "--use_public_ips" if settings.public_ips else "--no_use_public_ips"
    return [*given, address, *(f"--labels={label}" for label in labels)]
