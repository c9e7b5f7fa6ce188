"""The release into Vertex AI: the champion of Model Registry, a new version in it, and its endpoint."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tidemill.artifacts import MODEL_MANIFEST, NETWORK, SAVED_MODEL
from tidemill.bundle import open_bundle
from tidemill.files import replaced_directory, write_json
from tidemill.registration import REGISTERED, Evidence, admit
from tidemill.stage import Origin
from tidemill.vertex.batch import BatchPrediction, batch_prediction
from tidemill.vertex.clients import Clients
from tidemill.vertex.location import Location
from tidemill.vertex.registry import CHAMPION, EXTRA, ModelRegistry, read_sample, store_version
from tidemill.vertex.rollout import Rollouts
from tidemill.vertex.settings import Settings
from tidemill.vertex.storage import Store

DEPLOYMENT: Final = "deployment.json"
PREDICTION: Final = "prediction.json"


@dataclass(frozen=True)
class ChampionReport:
    """The version in production, or None."""

    model: str
    version: str | None


@dataclass(frozen=True)
class RegisterReport:
    """The registered version; ``path`` is where it lies in Cloud Storage, ``resource`` its name in Model Registry."""

    name: str
    version: str
    path: str
    digest: str
    resource: str


@dataclass(frozen=True)
class DeployReport:
    """What answers, and where; see `tidemill.deploy.run.DeployReport`.

    Attributes:
        address: resource name of the endpoint.
        url: where predictions are asked for.
        traffic: percent by version.
        retired: versions that were taken off.
        curl: a request for the shell, made of a row of the test split.
        answer: what the version answered to it.
    """

    model: str
    version: str
    address: str
    url: str
    former: str | None
    traffic: Mapping[str, int]
    retired: tuple[str, ...]
    curl: str
    answer: Any


def find_champion(
    bundle: str | Path,
    registry: str,
    champion: str | Path,
    reference: str | Path,
    clients: Clients | None = None,
) -> ChampionReport:
    """Puts the champion's model artefact and its statistics out, or empty directories if there is none.

    Args:
        registry: ``projects/<project>/locations/<region>``.
        clients: those of the location by default.
    """
    asked = clients or Clients(Location.parse(registry))
    store, models = Store(asked.location), ModelRegistry(asked, open_bundle(Path(bundle)).problem.name)
    found = models.holder(CHAMPION)
    with replaced_directory(Path(champion)) as model, replaced_directory(Path(reference)) as statistics:
        if found is not None:
            extra = ("assets.extra/", MODEL_MANIFEST)
            store.get_tree(found.uri, model / SAVED_MODEL, lambda name: not name.startswith(extra))
            if any(store.names(network := f"{found.uri}/{EXTRA}/{NETWORK}")):
                store.get_tree(network, model / NETWORK)
            (model / MODEL_MANIFEST).write_bytes(store.read(f"{found.uri}/{MODEL_MANIFEST}"))
            store.get_tree(f"{found.uri}/{EXTRA}/statistics", statistics)
    return ChampionReport(models.model, found.number if found else None)


def register(
    evidence: Evidence,
    registry: str,
    settings: Mapping[str, Any],
    registered: str | Path,
    run_id: str,
    origin: Origin,
    clients: Clients | None = None,
) -> RegisterReport:
    """Registers a model as the challenger, with its lineage and the evidence for it.

    The same SavedModel keeps its version and all that was kept with it.

    Args:
        registry: ``projects/<project>/locations/<region>``.
        settings: see `tidemill.vertex.settings`.
        registered: directory that ``registered.json`` is written to.
        run_id: the run that made the model.
        origin: what the code that made the model was made from.

    Raises:
        GateRefused: if blessing or rehearsal did not pass, or were made for another model.
        DataError: if the model isn't what its manifest says.
        UsageError: if the settings are faulty, or Vertex AI refuses the model.
        PlatformError: if Vertex AI or Cloud Storage can't be reached, or permits it not.
    """
    admitted, parsed = admit(evidence, run_id, origin), Settings.parse(settings)
    name, digest = admitted.manifest.name, admitted.manifest.digest
    asked = clients or Clients(Location.parse(registry))
    uri = f"{parsed.models_uri.rstrip('/')}/{name}/{digest}"
    store_version(Store(asked.location), uri, evidence.model, admitted.fill)
    version = ModelRegistry(asked, name).add(digest, uri, parsed, run_id)
    report = RegisterReport(name, version.number, uri, digest, version.address)
    with replaced_directory(Path(registered)) as directory:
        write_json(directory / REGISTERED, {**asdict(report), "run_id": run_id})
    return report


def deploy(
    registered: str | Path,
    registry: str,
    endpoints: str,
    settings: Mapping[str, Any],
    deployment: str | Path,
    clients: Clients | None = None,
) -> DeployReport:
    """Has the version answer at the model's endpoint, tries it before it gets traffic, and makes it the champion.

    Args:
        registered: directory with ``registered.json``.
        registry: where the model is registered.
        endpoints: where it is to answer; the same location.
        deployment: directory that ``deployment.json`` is written to.

    Raises:
        UsageError: if the settings are faulty, or Vertex AI refuses machine or accelerator.
        PlatformError: if the version doesn't answer as it did in the rehearsal; the champion is then as it was.
    """
    described, parsed = json.loads((Path(registered) / REGISTERED).read_text()), Settings.parse(settings)
    asked = clients or Clients(Location.parse(endpoints))
    rollouts = Rollouts(asked, parsed, described["name"])
    version = ModelRegistry(clients or Clients(Location.parse(registry)), described["name"]).find(described["version"])
    outcome = rollouts.release(version, parsed.traffic_percent)
    sample = read_sample(Store(asked.location), version)
    url = predict_url(outcome.endpoint, asked.location)
    report = DeployReport(
        model=version.model,
        version=version.number,
        address=outcome.endpoint.name,
        url=url,
        former=outcome.former,
        traffic=outcome.traffic,
        retired=outcome.retired,
        curl=_curl(url, sample.request),
        answer=outcome.answer or rollouts.endpoint.predict(sample.request),
    )
    with replaced_directory(Path(deployment)) as directory:
        write_json(directory / DEPLOYMENT, asdict(report))
    return report


def batch_predict(
    registry: str,
    model: str,
    version: str,
    source: str,
    destination: str,
    settings: Mapping[str, Any],
    prediction: str | Path,
    run_id: str,
    clients: Clients | None = None,
) -> BatchPrediction:
    """Has Vertex AI predict a JSON Lines file, and says where the predictions are.

    Args:
        version: number or alias.
        prediction: directory that ``prediction.json`` is written to.

    Raises:
        UsageError: if there is no such version, or Vertex AI refuses the job.
        PlatformError: if the job fails.
    """
    asked, parsed = clients or Clients(Location.parse(registry)), Settings.parse(settings)
    found = ModelRegistry(asked, model).find(version)
    report = batch_prediction(asked, parsed, found, source, destination, run_id)
    with replaced_directory(Path(prediction)) as directory:
        write_json(directory / PREDICTION, {**asdict(report), "version": found.number})
    return report


def predict_url(endpoint: Any, location: Location) -> str:
    """Returns where an endpoint is asked for predictions."""
    if endpoint.network:
        uris = [model.private_endpoints.predict_http_uri for model in endpoint.deployed_models]
        return uris[0] if uris else ""
    host = endpoint.dedicated_endpoint_dns.removeprefix("https://") or location.api_endpoint
    return f"https://{host}/v1/{endpoint.name}:predict"


def _curl(url: str, body: Any) -> str:
    content = json.dumps(body, ensure_ascii=False)
    token = "" if url.startswith("http://") else ' -H "Authorization: Bearer $(gcloud auth print-access-token)"'
    return f"curl -s{token} -H 'Content-Type: application/json' -d {shlex.quote(content)} {url}"
