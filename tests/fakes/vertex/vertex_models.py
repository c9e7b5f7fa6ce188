"""ModelService: models, their versions and the aliases that move between them."""

from __future__ import annotations

import re
from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2
from vertex_world import Refusal, World, check_display_name, check_labels, matching, now, page

_ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z-0-9]")


class Models:
    """Answers for ``google.cloud.aiplatform.v1.ModelService``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def upload_model(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        self._check(request.model)
        name = self._name(request)
        for alias in request.model.version_aliases:
            _check_alias(alias)
        versions = self.world.models.setdefault(name, [])
        model = sdk.Model(request.model)
        model.name, model.version_id = name, str(len(versions) + 1)
        model.create_time = model.update_time = model.version_create_time = now()
        model.version_aliases = [] if versions else ["default"]
        model.etag = self.world.number_for()
        versions.append(model)
        self._add(versions, model, list(request.model.version_aliases))
        response = sdk.UploadModelResponse(model=name, model_version_id=model.version_id)
        return self.world.operate(name, sdk.UploadModelOperationMetadata(), response)

    def get_model(self, request: Any) -> Any:
        return find_version(self.world, request.name)

    def list_models(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        defaults = [find_version(self.world, name) for name, versions in self.world.models.items() if versions]
        found, token = page(
            matching(defaults, request.filter, ("display_name",)), request.page_size, request.page_token
        )
        return sdk.ListModelsResponse(models=found, next_page_token=token)

    def list_model_versions(self, request: Any) -> Any:
        identity = self.world.check_name(request.name, "models")
        versions = self.world.models.get(f"{self.world.parent}/models/{identity}")
        if not versions:
            raise Refusal("NOT_FOUND", f"The Model {request.name} does not exist.")
        if request.order_by not in ("", "create_time desc", "create_time asc", "update_time desc"):
            raise Refusal("INVALID_ARGUMENT", f"Invalid order_by: '{request.order_by}'.")
        ordered = versions[::-1] if request.order_by.endswith("desc") else list(versions)
        found, token = page(matching(ordered, request.filter, ()), request.page_size, request.page_token)
        return sdk.ListModelVersionsResponse(models=found, next_page_token=token)

    def update_model(self, request: Any) -> Any:
        model = find_version(self.world, request.model.name)
        for path in request.update_mask.paths:
            if path not in ("labels", "description", "display_name", "version_description"):
                raise Refusal("INVALID_ARGUMENT", f"Invalid update_mask path: '{path}'.")
            setattr(model, path, getattr(request.model, path))
        check_labels(model.labels)
        return model

    def merge_version_aliases(self, request: Any) -> Any:
        if "@" not in request.name:
            raise Refusal("INVALID_ARGUMENT", f"The version ID must be given explicitly: '{request.name}'.")
        model = find_version(self.world, request.name)
        if not request.version_aliases:
            raise Refusal("INVALID_ARGUMENT", "version_aliases is required.")
        removed = [alias[1:] for alias in request.version_aliases if alias.startswith("-")]
        added = [alias for alias in request.version_aliases if not alias.startswith("-")]
        for alias in (*removed, *added):
            _check_alias(alias)
        if "default" in removed:
            raise Refusal("FAILED_PRECONDITION", "The default alias can be moved, and not removed.")
        model.version_aliases = [alias for alias in model.version_aliases if alias not in removed]
        self._add(self.world.models[model.name], model, added)
        return model

    def delete_model_version(self, request: Any) -> Any:
        model = find_version(self.world, request.name)
        if "default" in model.version_aliases:
            raise Refusal("FAILED_PRECONDITION", "The default version cannot be deleted.")
        self.world.models[model.name].remove(model)
        return self.world.operate(model.name, sdk.DeleteOperationMetadata(), empty_pb2.Empty())

    def _name(self, request: Any) -> str:
        if request.parent_model:
            self.world.check_name(request.parent_model, "models")
            if not self.world.models.get(request.parent_model):
                raise Refusal("NOT_FOUND", f"The Model {request.parent_model} does not exist.")
            return str(request.parent_model)
        identity = request.model_id or self.world.number_for()
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", request.model_id or "a"):
            raise Refusal("INVALID_ARGUMENT", f"model_id '{request.model_id}' is invalid.")
        name = f"{self.world.parent}/models/{identity}"
        if self.world.models.get(name):
            raise Refusal("ALREADY_EXISTS", f"The Model {name} already exists; give it as parent_model.")
        return name

    def _check(self, model: Any) -> None:
        check_display_name(model.display_name)
        check_labels(model.labels)
        self.world.check_encryption(model.encryption_spec.kms_key_name)
        container = model.container_spec
        if not container.image_uri:
            raise Refusal("INVALID_ARGUMENT", "container_spec.image_uri is required.")
        if not re.match(
            r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io|registry\.example\.com)/", container.image_uri
        ):
            known = "Artifact Registry or Container Registry"
            raise Refusal("INVALID_ARGUMENT", f"The image '{container.image_uri}' must be in {known}.")
        for route in (container.predict_route, container.health_route):
            if route and not route.startswith("/"):
                raise Refusal("INVALID_ARGUMENT", f"The route '{route}' must begin with '/'.")
        self._check_artifact(model.artifact_uri)

    def _check_artifact(self, uri: str) -> None:
        match = re.fullmatch(r"gs://([^/]+)/(.+?)/?", uri)
        if match is None:
            raise Refusal("INVALID_ARGUMENT", f"artifact_uri '{uri}' is invalid: it must be a gs:// directory.")
        bucket, prefix = match.groups()
        if not any(b == bucket and name.startswith(f"{prefix}/") for b, name in self.world.objects):
            raise Refusal("FAILED_PRECONDITION", f"There are no files in {uri}, or they cannot be read.")

    def _add(self, versions: list[Any], model: Any, aliases: list[str]) -> None:
        for other in versions:
            other.version_aliases = [alias for alias in other.version_aliases if alias not in aliases]
        model.version_aliases = [*model.version_aliases, *aliases]


def find_version(world: World, name: str) -> Any:
    """Returns a model's version by ``…/models/<id>``, ``…@<version>`` or ``…@<alias>``."""
    identity, _, wanted = world.check_name(name, "models").partition("@")
    wanted = wanted or "default"
    versions = world.models.get(f"{world.parent}/models/{identity}", [])
    for model in versions:
        if model.version_id == wanted or wanted in model.version_aliases:
            return model
    raise Refusal("NOT_FOUND", f"The Model {name} does not exist.")


def _check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias):
        raise Refusal("INVALID_ARGUMENT", f"The version alias '{alias}' is invalid.")
