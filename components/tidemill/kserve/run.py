"""Lets a registered version answer on a cluster: ready and tried beside the champion first, then by its share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.files import replaced_directory, write_json
from tidemill.kserve.cluster import Cluster, Conflict
from tidemill.kserve.routes import Route, apply_route, await_accepted, read_route, restore_route, shares
from tidemill.kserve.services import SERVICES, Predictor, applied, await_ready, digest_of, of_model
from tidemill.kserve.settings import KserveSettings
from tidemill.kserve.trials import tried
from tidemill.samples import SAMPLE, Sample
from tidemill.serving.registry import Registry

DEPLOYMENT: Final = "deployment.json"
SERVER: Final = "server.json"
"""Kept with a version in the registry: the image that serves it."""
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class KserveReport:
    """What answers, and where.

    Attributes:
        version: that was released, or gone back to.
        former: the champion before.
        address: of the gateway as the target's file tells it, or of the version's own service within the cluster.
        url: where predictions are asked for.
        traffic: percent by version, as the route is now.
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
    keeps the rest. Of all services only the version's own is made what the settings say: the champion serves on as it
    is. Versions without traffic are deleted last. Each step finds what an earlier try left of it.

    Raises:
        UsageError: if no such version is registered.
        PlatformError: if it doesn't become ready, answers otherwise or the gateway refuses the route; the traffic is
            then as it was.
    """
    store, served = place.store, _served(place)
    before = store.aliases().champion
    store.nominate(version)
    weights = shares(version, traffic_percent, before)
    others = weights.keys() - {version}
    for other in others:  # the champion may have been taken away by hand
        _ready(place, other, renew=False)
    answer = _ready(place, version, renew=True)
    if others and (now := store.aliases().champion) != before:
        got, remedy = f"version {now}, which was {before}", "run the step again; the traffic is as that release left it"
        raise PlatformError(f"model {store.model}", "the champion must stay the same meanwhile", got, remedy)
    champion = version if weights == {version: 100} else before
    moved = _move(place, weights, champion)
    if champion == version and _route(place).champion == version:  # else another release has gone on from here
        store.promote(version)
    return _report(place, version, before, moved, _retire(place, served), answer)


def rollback(place: Place, leave: int) -> KserveReport:
    """Gives all traffic back: from a challenger to the champion, or from the champion to the one before.

    Args:
        leave: the version that is to have no traffic. Naming it makes a second call do nothing.

    Raises:
        UsageError: if there is nothing to go back to.
        PlatformError: if that version doesn't become ready, answers otherwise or the gateway refuses the route; the
            traffic is then as it was.
    """
    store, served = place.store, _served(place)
    aliases = store.aliases()
    if aliases.champion == leave and aliases.former:
        version = aliases.former[-1]
    elif aliases.champion is not None and aliases.champion != leave:
        version = aliases.champion
    else:
        raise UsageError(f"model {store.model}", "there is no former champion to go back to")
    answer = _ready(place, version, renew=False)
    moved = _move(place, {version: 100}, version)
    if aliases.champion == leave and _route(place).champion == version:
        store.rollback()
    return _report(place, version, aliases.champion, moved, _retire(place, served, leave), answer)


def _next(store: Registry) -> int:
    aliases = store.aliases()
    version = aliases.challenger or aliases.champion
    if version is None:
        raise UsageError(f"model {store.model}", f"no version is registered in {store.path.parent}")
    return version


def _ready(place: Place, version: int, renew: bool) -> Any:
    """Has a version's service ready and returns what it answers to the sample of its rehearsal.

    Args:
        renew: make a service that is there what the settings say; otherwise it stays as it is.
    """
    cluster, store = place.cluster, place.store
    predictor, digest = Predictor(store.model, version), store.manifest(version).digest
    service = cluster.get(SERVICES, predictor.name)
    if renew or service is None or digest_of(service) != digest:
        image = _server_image(store, version, place.settings.image if renew else None)
        applied(cluster, predictor, digest, replace(place.settings, image=image))
    ready = await_ready(cluster, predictor, place.settings.ready_timeout_s)
    return tried(cluster, predictor, ready, Sample.read(store.extra(version, SAMPLE)))


def _server_image(store: Registry, version: int, given: str | None) -> str | None:
    """Returns the image that a version is served by: the one of its first release, for as long as it lives.

    Args:
        given: kept with the version if none is yet; None leaves the image to the ServingRuntime.
    """
    kept = store.extra(version, SERVER)
    if kept.is_file():
        return str(json.loads(kept.read_text())["image"])
    if given is not None:
        write_json(kept, {"image": given})
    return given


def _route(place: Place) -> Route:
    """Reads the model's route afresh; an empty one stands for none."""
    model = place.store.model
    name = place.settings.endpoint or model
    return read_route(place.cluster, name, model) or Route(name, model)


def _move(place: Place, weights: Mapping[int, int], champion: int | None) -> bool:
    """Shares the traffic out and sees the gateway accept that; returns whether it changed anything.

    Another's change at the same moment is read.
    """
    settings = place.settings
    for attempt in range(_ATTEMPTS):
        found = _route(place)
        wanted = Route(
            found.name, found.model, weights, champion, settings.hostname, place.image, revision=found.revision
        )
        try:
            written = apply_route(place.cluster, wanted, settings)
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            _see_accepted(place, written, found)
            return (dict(found.weights), found.champion) != (dict(weights), champion)
    raise AssertionError("unreachable")


def _see_accepted(place: Place, written: Mapping[str, Any], former: Route) -> None:
    """Waits until the gateway has accepted a route, and puts the former one back if it doesn't."""
    settings, name = place.settings, former.name
    if not (reasons := await_accepted(place.cluster, name, settings)):
        return
    restored = restore_route(place.cluster, name, written["metadata"].get("generation", 0), former.found)
    so = "the traffic is as it was" if restored else "another has changed the route meanwhile: look at it"
    raise PlatformError(
        f"HTTPRoute {name}",
        f"gateway {settings.gateway} must accept it within {settings.route_timeout_s:g} s",
        "; ".join(reasons),
        f"{so}; check `deploy.gateway` and `deploy.hostname` against the Gateway's listeners, and run the step again",
    )


def _served(place: Place) -> dict[int, str | None]:
    """Returns the versions that have a service, with its uid."""
    found = of_model(place.cluster, place.store.model)
    return {predictor.version: service["metadata"].get("uid") for predictor, service in found.items()}


def _retire(place: Place, served: Mapping[int, str | None], leave: int | None = None) -> tuple[int, ...]:
    """Deletes services without traffic, after what is on its way to them has had time to arrive.

    Args:
        served: those that were there when this release began; what came later is another release's.
        leave: the version that is to be left, even if it is the challenger.
    """
    if not _idle(place, served, leave):
        return ()
    place.cluster.pause(place.settings.drain_s)
    gone = _idle(place, served, leave)  # the traffic may have been moved meanwhile
    for version in gone:
        place.cluster.delete(SERVICES, Predictor(place.store.model, version).name)
    return gone


def _idle(place: Place, served: Mapping[int, str | None], leave: int | None) -> tuple[int, ...]:
    """Returns the versions that nothing asks for: neither the route nor the registry, as they are now."""
    route, aliases, now = _route(place), place.store.aliases(), _served(place)
    needed = {route.champion, aliases.champion, aliases.challenger} - {leave}
    same = (version for version, uid in served.items() if version in now and now[version] == uid)
    return tuple(sorted(v for v in same if v not in route.weights and v not in needed)) if route.weights else ()


def _report(
    place: Place, version: int, before: int | None, moved: bool, retired: tuple[int, ...], answer: Any
) -> KserveReport:
    store, settings = place.store, place.settings
    own = f"http://{Predictor(store.model, version).backend}.{place.cluster.namespace}.svc"
    address = settings.address or own
    url = f"{address.rstrip('/')}/v1/models/{store.model}:predict"
    body = Sample.read(store.extra(version, SAMPLE)).request
    host = f" -H {shlex.quote(f'Host: {settings.hostname}')}" if settings.hostname and settings.address else ""
    content = shlex.quote(json.dumps(body, ensure_ascii=False))
    aliases, weights = store.aliases(), _route(place).weights
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


def _write(report: KserveReport, deployment: Path) -> None:
    with replaced_directory(deployment) as directory:
        write_json(directory / DEPLOYMENT, asdict(report))
