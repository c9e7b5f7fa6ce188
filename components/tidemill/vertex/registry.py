"""Model Registry: one model per problem, a version per SavedModel, and aliases that say which one answers.

======================  ==================================================================================
``champion``            the version that answers
``challenger``          the version that is about to
``former-1`` …          earlier champions, the highest number last; a rollback goes back along them
======================  ==================================================================================

What a version consists of lies in Cloud Storage, in TensorFlow Serving's layout with ``model.json`` beside it and the
evidence in ``assets.extra/tidemill/``, under an address that ends in the SavedModel's digest.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tidemill.artifacts import MODEL_MANIFEST, SAVED_MODEL
from tidemill.errors import UsageError
from tidemill.samples import SAMPLE, Sample
from tidemill.vertex.clients import Clients
from tidemill.vertex.sdk import api_errors
from tidemill.vertex.settings import Settings
from tidemill.vertex.storage import Store

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
EXTRA: Final = "assets.extra/tidemill"
MODEL_LABEL: Final = "tidemill-model"
DIGEST_LABEL: Final = "tidemill-digest"
RUN_LABEL: Final = "tidemill-run"
PREDICT_ROUTE: Final = "/predict"
HEALTH_ROUTE: Final = "/health"
PORT: Final = 8080
_FORMER: Final = re.compile(r"former-(\d+)")
_LABEL_LENGTH: Final = 63


@dataclass(frozen=True)
class Version:
    """A version of a model.

    Attributes:
        name: resource name of the model, without the version.
        number: as Model Registry counts: ``3``.
        uri: where it lies in Cloud Storage.
        digest: hex sha256 of the SavedModel; None for a version that tidemill didn't upload.
    """

    name: str
    number: str
    aliases: tuple[str, ...]
    uri: str
    digest: str | None

    @property
    def address(self) -> str:
        """Resource name with the version."""
        return f"{self.name}@{self.number}"

    @property
    def model(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    @property
    def formers(self) -> list[int]:
        """The places that it has among the former champions."""
        return [int(match.group(1)) for alias in self.aliases if (match := _FORMER.fullmatch(alias))]


class ModelRegistry:
    """The versions and aliases of one model."""

    def __init__(self, clients: Clients, model: str) -> None:
        self.model = model
        self.name = f"{clients.location.path}/models/{model}"
        self._clients = clients
        self._where = f"model {model}"

    def versions(self) -> list[Version]:
        """Returns all versions, the newest first; none if there is no such model."""
        request = {"name": self.name, "order_by": "create_time desc"}
        try:
            found = self._clients.ask_all(
                self._where, self._clients.models.list_model_versions, request, passing=api_errors().NotFound
            )
        except api_errors().NotFound:
            return []
        return [version_of(model) for model in found]

    def find(self, wanted: str) -> Version:
        """Returns a version by its number or alias.

        Raises:
            UsageError: if there is none.
        """
        versions = self.versions()
        for version in versions:
            if wanted == version.number or wanted in version.aliases:
                return version
        there = ", ".join(v.number for v in versions) or "none"
        raise UsageError(self._where, f"has no version {wanted}", f"in {self._clients.location.path} are {there}")

    def holder(self, alias: str) -> Version | None:
        """Returns the version that has an alias, if one has."""
        return next((version for version in self.versions() if alias in version.aliases), None)

    def add(self, digest: str, uri: str, settings: Settings, run_id: str) -> Version:
        """Returns the version of a SavedModel, uploaded if there is none yet, as the challenger or still champion.

        Args:
            uri: where the version lies, complete.
            run_id: the run that made it; a label.
        """
        found = self._clients.ensure(
            self._where, lambda: self._of_digest(digest), lambda: self._upload(digest, uri, settings, run_id)
        )
        if CHAMPION not in found.aliases and CHALLENGER not in found.aliases:
            self._merge(found, [CHALLENGER])
        return self.find(found.number)

    def promote(self, version: Version) -> Version | None:
        """Makes a version the champion, and returns the one that was it before. A repeated call changes nothing.

        The former champion gets its place among the former ones first: a call that is cut off in between leaves both
        names on it, and the next one goes on.
        """
        versions = self.versions()
        champion = next((v for v in versions if CHAMPION in v.aliases), None)
        if champion is not None and champion.number == version.number:
            return last_former(versions, but=version)
        if champion is not None:
            places = [place for v in versions for place in v.formers]
            if not places or max(places) not in champion.formers:
                self._merge(champion, [f"former-{max(places, default=0) + 1}"])
        removed = [f"-{CHALLENGER}"] if CHALLENGER in self.find(version.number).aliases else []
        self._merge(version, [CHAMPION, *removed])
        return champion

    def former(self) -> Version:
        """Returns the champion before the present one.

        Raises:
            UsageError: if there is none.
        """
        versions = self.versions()
        champion = next((v for v in versions if CHAMPION in v.aliases), None)
        former = last_former(versions, but=champion) if champion is not None else None
        if former is None:
            raise UsageError(self._where, "there is no former champion to go back to")
        return former

    def revert(self, former: Version) -> None:
        """Makes the former champion the champion again, and takes its last place among the former ones away."""
        self._merge(former, [CHAMPION, f"-former-{max(former.formers)}"])

    def withdraw(self, version: Version) -> None:
        """Takes the alias ``challenger`` away from a version, if it has it."""
        if CHALLENGER in self.find(version.number).aliases:
            self._merge(version, [f"-{CHALLENGER}"])

    def _of_digest(self, digest: str) -> Version | None:
        return next((version for version in self.versions() if version.digest == digest), None)

    def _upload(self, digest: str, uri: str, settings: Settings, run_id: str) -> Version:
        model = {
            "display_name": self.model,
            "version_description": f"made by {run_id}",
            "artifact_uri": uri,
            "labels": {
                **settings.labels,
                MODEL_LABEL: label(self.model),
                DIGEST_LABEL: label(digest),
                RUN_LABEL: label(run_id),
            },
            "version_aliases": [CHALLENGER],
            "container_spec": container_spec(settings.serving_image),
        }
        if settings.encryption:
            model["encryption_spec"] = settings.encryption
        request = {"parent": self._clients.location.path, "model": model}
        upload = self._clients.models.upload_model
        try:
            # The first version makes the model; if another run is quicker, this one becomes a version of its model.
            operation = self._clients.once(self._where, upload, request | self._place(), api_errors().AlreadyExists)
        except api_errors().AlreadyExists:
            operation = self._clients.once(self._where, upload, request | {"parent_model": self.name})
        return self.find(self._clients.finish(self._where, operation).model_version_id)

    def _place(self) -> dict[str, str]:
        return {"parent_model": self.name} if self.versions() else {"model_id": self.model}

    def _merge(self, version: Version, aliases: list[str]) -> None:
        # An alias that another version has moves: it is unique within the model.
        request = {"name": version.address, "version_aliases": aliases}
        self._clients.ask(self._where, self._clients.models.merge_version_aliases, request)


def container_spec(image: str) -> dict[str, Any]:
    """Returns how Vertex AI runs our server: it finds the model and its routes in ``AIP_*`` variables."""
    return {
        "image_uri": image,
        "command": ["python3", "-m", "tidemill.serving"],
        "ports": [{"container_port": PORT}],
        "predict_route": PREDICT_ROUTE,
        "health_route": HEALTH_ROUTE,
    }


def version_of(model: Any) -> Version:
    """Returns a Model message as a version."""
    last = model.artifact_uri.rstrip("/").rsplit("/", 1)[-1]
    return Version(
        name=model.name.partition("@")[0],
        number=model.version_id,
        aliases=tuple(sorted(model.version_aliases)),
        uri=model.artifact_uri.rstrip("/"),
        digest=last if re.fullmatch(r"[0-9a-f]{64}", last) else None,
    )


def registered_models(clients: Clients) -> list[str]:
    """Returns the names of the models that tidemill registered."""
    request = {"parent": clients.location.path}
    models = clients.ask_all("models", clients.models.list_models, request)
    return sorted(model.name.rsplit("/", 1)[-1] for model in models if MODEL_LABEL in model.labels)


def store_version(store: Store, uri: str, model: Path, fill: Callable[[Path], None]) -> None:
    """Puts a version into Cloud Storage; one that is there complete stays as it is.

    ``model.json`` is written last: with it, a version is complete. What a killed upload left is written over.

    Args:
        model: the model's artefact.
        fill: writes what is kept with the version into a directory.
    """
    if store.exists(f"{uri}/{MODEL_MANIFEST}"):
        return
    with tempfile.TemporaryDirectory() as beside:
        extra = Path(beside) / "extra"
        fill(extra)
        store.put_tree(extra, f"{uri}/{EXTRA}", replace=True)
    store.put_tree(model / SAVED_MODEL, uri, replace=True)
    store.put(f"{uri}/{MODEL_MANIFEST}", model / MODEL_MANIFEST)


def read_sample(store: Store, version: Version) -> Sample:
    """Returns the row that a version must answer as it did in its rehearsal."""
    return Sample.parse(store.read(f"{version.uri}/{EXTRA}/{SAMPLE}"))


def label(text: str) -> str:
    """Returns a text as the value of a label."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:_LABEL_LENGTH]


def last_former(versions: list[Version], but: Version | None) -> Version | None:
    candidates = [v for v in versions if v.formers and (but is None or v.number != but.number)]
    return max(candidates, key=lambda version: max(version.formers), default=None)
