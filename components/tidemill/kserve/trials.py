"""The trial of a version: asked as its rehearsal was, at the service that is its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tidemill.errors import PlatformError
from tidemill.kserve.cluster import Cluster
from tidemill.kserve.services import Predictor
from tidemill.samples import Sample
from tidemill.serving.client import Answer, Client

_TIMEOUT_S: Final = 60.0
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 5.0, 5.0)
"""Names and addresses of pods that are ready reach the nodes some seconds later."""
_SETTLED_S: Final = sum(_PAUSES_S)
_UNAVAILABLE: Final = 503


def tried(cluster: Cluster, predictor: Predictor, service: Mapping[str, Any], sample: Sample) -> Any:
    """Asks a version the row of its rehearsal and returns the answer.

    Args:
        service: its InferenceService, whose predictor is ready.

    Raises:
        PlatformError: if it doesn't answer, or otherwise than it did then.
    """
    told = service.get("status", {}).get("address", {}).get("url")
    answer = _ask(cluster, str(told or f"http://{predictor.backend}.{cluster.namespace}.svc"), predictor, sample)
    if not sample.agrees(answer["predictions"][0]):
        raise PlatformError(
            f"InferenceService {predictor.name}",
            "must answer a test row as it did in the rehearsal",
            "another prediction",
            "see the log of its pods; the traffic is as it was",
        )
    return answer


def _ask(cluster: Cluster, address: str, predictor: Predictor, sample: Sample) -> Any:
    where = f"{address}/v1/models/{predictor.model}:predict"
    expected, deadline = "must answer a test row", time.monotonic() + _SETTLED_S
    for pause in (*_PAUSES_S, None):
        last = pause is None or time.monotonic() > deadline
        try:
            answer = _post(address, predictor.model, sample)
        except OSError as error:
            if last:
                remedy = "the network policies must let the pipeline's pods reach the predictors"
                raise PlatformError(where, expected, f"{type(error).__name__}: {error}", remedy) from error
        else:
            if answer.status == 200:
                return answer.value
            if last or answer.status != _UNAVAILABLE:
                raise PlatformError(where, expected, f"status {answer.status}: {answer.error}")
        cluster.pause(pause or 0.0)
    raise AssertionError("unreachable")


def _post(address: str, model: str, sample: Sample) -> Answer:
    parts = urlsplit(address)
    with Client(parts.hostname or "", parts.port or 80, _TIMEOUT_S) as client:
        return client.post(f"/v1/models/{model}:predict", sample.request)
