"""Lets a registered version answer on a cluster: ready and tried beside the champion first, then by its share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tidemill.errors import PlatformError, UsageError
from tidemill.files import replaced_directory, write_json
from tidemill.kserve.cluster import Cluster, Conflict
from tidemill.kserve.routes import Route, apply_route, read_route, shares
from tidemill.kserve.services import SERVICES, Predictor, applied, await_ready, of_model
from tidemill.kserve.settings import KserveSettings
from tidemill.samples import SAMPLE, Sample
from tidemill.serving.client import Client
from tidemill.serving.registry import Registry

DEPLOYMENT: Final = "deployment.json"
_ATTEMPTS: Final = 5
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class KserveReport:
    """What answers, and where.

    Attributes:
        version: that was released, or gone back to.
        former: the champion before.
        address: of the gateway as the target's file tells it, or of the version's own service within the cluster.
        url: where predictions are asked for.
        traffic: percent by version.
        retired: versions whose services were deleted, having no traffic left.
        changed: False if all was so already.
        curl: a request for the shell, made of a row of the test split.
        answer: what the version answered to it.
    """

    model: str
    version: int
    former: int | None
    address: str
    url: str
    traffic: Mapping[str, int]
    retired: tuple[int, ...]
    changed: bool
    curl: str
    answer: Any


@dataclass(frozen=True)
class Place:
    """Where a model is registered and served.

    Attributes:
        image: that this runs in, if it is known.
    """

    cluster: Cluster
    store: Registry
    settings: KserveSettings
    image: str | None = None


def run(
    registered: str | Path,
    registry: str | Path,
    namespace: str,
    settings: Mapping[str, Any],
    deployment: str | Path,
    image: str | None,
) -> KserveReport:
    """Releases a registered version with the share that the settings give it; see :func:`release`.

    Args:
        registered: directory with ``registered.json``.
        registry: root of the file registry, on the store's volume.
        namespace: that models are served in.
        deployment: directory that ``deployment.json`` is written to.
        image: that this runs in; noted on the route.
    """
    described = json.loads((Path(registered) / "registered.json").read_text())
    store, parsed = Registry(Path(registry), described["name"]), KserveSettings.parse(settings)
    with Cluster(namespace) as cluster:
        place = Place(cluster, store, parsed, image)
        report = release(place, int(described["version"]), parsed.traffic_percent)
    _write(report, Path(deployment))
    return report


def roll_out(
    model: str,
    version: int,
    back: bool,
    traffic_percent: int,
    registry: str | Path,
    namespace: str,
    settings: Mapping[str, Any],
    deployment: str | Path,
    image: str | None,
) -> KserveReport:
    """Releases a version of one's choice, or goes back from one.

    Args:
        version: 0 means the challenger, or the champion where there is none.
        back: whether ``version`` is to be left; see :func:`rollback`.
        traffic_percent: share of the version.
    """
    store, parsed = Registry(Path(registry), model), KserveSettings.parse(settings)
    with Cluster(namespace) as cluster:
        place = Place(cluster, store, parsed, image)
        report = rollback(place, version) if back else release(place, version or _next(store), traffic_percent)
    _write(report, Path(deployment))
    return report


def release(place: Place, version: int, traffic_percent: int) -> KserveReport:
    """Gives a version its share of the traffic, once it is ready and answers as in its rehearsal.

    With all of the traffic it becomes the champion; with less it remains the challenger beside the champion, which
    keeps the rest. Versions without traffic are deleted last. Each step finds what an earlier try left of it.

    Raises:
        UsageError: if no such version is registered.
        PlatformError: if it doesn't become ready or answers otherwise; the traffic is then as it was.
    """
    store = place.store
    before = store.aliases().champion
    store.nominate(version)
    weights = shares(version, traffic_percent, before)
    for other in weights.keys() - {version}:  # the champion may have been taken away by hand
        _ready(place, other)
    answer = _ready(place, version)
    champion = version if weights == {version: 100} else before
    moved = _move(place, weights, champion)
    if champion == version:
        store.promote(version)
    return _report(place, version, before, weights, moved, answer)


def rollback(place: Place, leave: int) -> KserveReport:
    """Gives all traffic back: from a challenger to the champion, or from the champion to the one before.

    Args:
        leave: the version that is to have no traffic. Naming it makes a second call do nothing.

    Raises:
        UsageError: if there is nothing to go back to.
        PlatformError: if that version doesn't become ready or answers otherwise; the traffic is then as it was.
    """
    store = place.store
    aliases = store.aliases()
    if aliases.champion == leave and aliases.former:
        version = aliases.former[-1]
    elif aliases.champion is not None and aliases.champion != leave:
        version = aliases.champion
    else:
        raise UsageError(f"model {store.model}", "there is no former champion to go back to")
    answer = _ready(place, version)
    moved = _move(place, {version: 100}, version)
    if aliases.champion == leave:
        store.rollback()
    return _report(place, version, aliases.champion, {version: 100}, moved, answer)


def _next(store: Registry) -> int:
    aliases = store.aliases()
    version = aliases.challenger or aliases.champion
    if version is None:
        raise UsageError(f"model {store.model}", f"no version is registered in {store.path.parent}")
    return version


def _ready(place: Place, version: int) -> Any:
    """Has a version's service ready and returns what it answers to the sample of its rehearsal."""
    cluster, store, settings = place.cluster, place.store, place.settings
    predictor = Predictor(store.model, version)
    applied(cluster, predictor, store.manifest(version).digest, settings)
    service = await_ready(cluster, predictor, settings.ready_timeout_s)
    sample = Sample.read(store.extra(version, SAMPLE))
    answer = _ask(_host(service, predictor, cluster.namespace), store.model, sample.request)
    if not sample.agrees(answer["predictions"][0]):
        raise PlatformError(
            f"InferenceService {predictor.name}",
            "must answer a test row as it did in the rehearsal",
            "another prediction",
            "see the log of its pods; the traffic is as it was",
        )
    return answer


def _move(place: Place, weights: Mapping[int, int], champion: int | None) -> bool:
    """Shares the traffic out; returns whether that changed anything. Another's change at the same moment is read."""
    model, settings = place.store.model, place.settings
    name = settings.endpoint or model
    wanted = Route(name, model, weights, champion, settings.hostname, place.image)
    for attempt in range(_ATTEMPTS):
        route = read_route(place.cluster, name, model)
        same = route is not None and (dict(route.weights), route.champion) == (dict(weights), champion)
        try:
            apply_route(place.cluster, replace(wanted, revision=route.revision if route else None), settings)
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            return not same
    raise AssertionError("unreachable")


def _report(
    place: Place, version: int, before: int | None, weights: Mapping[int, int], moved: bool, answer: Any
) -> KserveReport:
    store, settings = place.store, place.settings
    retired = _retire(place.cluster, store.model, weights)
    own = f"http://{Predictor(store.model, version).backend}.{place.cluster.namespace}.svc"
    address = settings.address or own
    url = f"{address.rstrip('/')}/v1/models/{store.model}:predict"
    body = Sample.read(store.extra(version, SAMPLE)).request
    host = f" -H {shlex.quote(f'Host: {settings.hostname}')}" if settings.hostname and settings.address else ""
    content = shlex.quote(json.dumps(body, ensure_ascii=False))
    aliases = store.aliases()
    former = before if before != version else aliases.former[-1] if aliases.former else None
    return KserveReport(
        model=store.model,
        version=version,
        former=former,
        address=address,
        url=url,
        traffic={str(v): weights[v] for v in sorted(weights)},
        retired=retired,
        changed=moved or bool(retired) or before != aliases.champion,
        curl=f"curl -s -H 'Content-Type: application/json'{host} -d {content} {url}",
        answer=answer,
    )


def _retire(cluster: Cluster, model: str, weights: Mapping[int, int]) -> tuple[int, ...]:
    """Deletes the services that no share of the traffic goes to."""
    idle = sorted(p.version for p in of_model(cluster, model) if p.version not in weights)
    for version in idle:
        cluster.delete(SERVICES, Predictor(model, version).name)
    return tuple(idle)


def _host(service: Mapping[str, Any], predictor: Predictor, namespace: str) -> str:
    """Returns the address of a version's own service, as KServe tells it."""
    told = service.get("status", {}).get("address", {}).get("url")
    return str(told or f"http://{predictor.backend}.{namespace}.svc")


def _ask(address: str, model: str, body: Any) -> Any:
    parts = urlsplit(address)
    where = f"{address}/v1/models/{model}:predict"
    try:
        with Client(parts.hostname or "", parts.port or 80, _TIMEOUT_S) as client:
            answer = client.post(f"/v1/models/{model}:predict", body)
    except OSError as error:
        remedy = "the network policies must let the pipeline's pods reach the predictors"
        raise PlatformError(where, "must answer a test row", type(error).__name__, remedy) from error
    if answer.status != 200:
        raise PlatformError(where, "must answer a test row", f"status {answer.status}: {answer.error}")
    return answer.value


def _write(report: KserveReport, deployment: Path) -> None:
    with replaced_directory(deployment) as directory:
        write_json(directory / DEPLOYMENT, asdict(report))
