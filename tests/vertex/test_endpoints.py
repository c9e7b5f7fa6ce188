"""What the commands ask of Vertex AI's models and endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.errors import UsageError
from tidemill_pipelines.targets.config import parse_target
from tidemill_pipelines.targets.vertex.endpoints import VertexEndpoints
from tidemill_pipelines.targets.vertex.release import vertex_release
from tidemill_pipelines.targets.vertex.settings import release_settings

TARGET = """
kind: vertex
pipeline_root: gs://example-bucket/root
labels: {team: risk}
vertex: {project: example-project, region: europe-west1}
deploy: {kind: vertex, drain_s: 0, max_replicas: 2}
"""


@pytest.fixture
def endpoints(world: Any, clients: Any) -> VertexEndpoints:
    world.settings["max_replicas"] = 2
    return VertexEndpoints(parse_target(TARGET, "target.yaml"), clients)


def test_models_and_their_versions_are_listed(world: Any, endpoints: VertexEndpoints, clients: Any, fake: Any) -> None:
    assert endpoints.models() == []
    world.release("1")
    world.register("2")
    stranger = {
        "display_name": "other",
        "artifact_uri": world.register("2").path,
        "container_spec": {"image_uri": world.settings["serving_image"]},
    }
    clients.models.upload_model(parent=world.registry, model=stranger).result()
    versions = endpoints.models()
    assert [(v.model, v.version, v.aliases) for v in versions] == [
        ("toy", "2", ("challenger",)),
        ("toy", "1", ("champion",)),
    ]
    assert versions[0].digest == world.register("2").digest
    assert versions[0].address == f"{world.registry}/models/toy@2"


def test_the_challenger_is_deployed_by_default_and_the_champion_where_there_is_none(
    world: Any, endpoints: VertexEndpoints
) -> None:
    world.register("1")
    world.register("2")
    first = endpoints.deploy("toy", "1", None)
    assert (first.version, first.former, first.traffic, first.changed) == ("1", None, {"1": 100}, True)
    assert first.answer["predictions"] == [0.5]
    second = endpoints.deploy("toy", None, 20)
    assert (second.version, second.former, second.traffic) == ("2", "1", {"1": 80, "2": 20})
    third = endpoints.deploy("toy", None, None)
    assert (third.version, third.former, third.traffic, third.retired) == ("2", "1", {"2": 100}, ("1",))
    again = endpoints.deploy("toy", None, None)
    assert (again.version, again.changed, again.answer) == ("2", False, None)
    back = endpoints.rollback("toy")
    assert (back.version, back.former, back.traffic) == ("1", "2", {"1": 100})
    assert back.endpoint.url.endswith("/endpoints/toy:predict")


def test_an_endpoint_says_what_it_has(world: Any, endpoints: VertexEndpoints) -> None:
    world.release("1")
    world.register("2")
    endpoints.deploy("toy", "2", 30)
    (status,) = endpoints.status("toy")
    assert [(v.version, v.traffic_percent, v.ready) for v in status.versions] == [("1", 70, True), ("2", 30, True)]
    assert status.versions[0].detail == "1 to 2 × n1-standard-2"
    assert endpoints.status(None) == [status]
    with pytest.raises(UsageError, match="endpoint other: there is none"):
        endpoints.status("other")


def test_predictions_are_handed_through(world: Any, endpoints: VertexEndpoints) -> None:
    world.release("1")
    answer = endpoints.predict("toy", {"instances": [{"age": 1}, {"age": 2}]})
    assert answer["predictions"] == pytest.approx([0.5, 0.501])
    assert answer["modelVersionId"] == "1"


@pytest.mark.parametrize(
    ("version", "percent", "message"),
    [
        ("7", None, r"model toy: has no version 7 .*are 1"),
        ("1", 0, "from 1 to 100 percent"),
        ("1", 101, "from 1 to 100 percent"),
    ],
)
def test_what_cannot_be_deployed_is_told(
    world: Any, endpoints: VertexEndpoints, version: str, percent: int | None, message: str
) -> None:
    world.register("1")
    with pytest.raises(UsageError, match=message):
        endpoints.deploy("toy", version, percent)
    with pytest.raises(UsageError, match=r"model other: has no version champion .*are none"):
        endpoints.deploy("other", None, None)
    with pytest.raises(UsageError, match="no former champion"):
        endpoints.rollback("toy")


def test_a_private_endpoint_takes_no_shares_and_needs_its_network(world: Any, clients: Any) -> None:
    world.register("1")
    text = TARGET.replace("drain_s: 0", "drain_s: 0, private: true")
    with pytest.raises(UsageError, match=r"deploy\.private: needs `vertex\.network`"):
        VertexEndpoints(parse_target(text, "target.yaml"), clients)
    network = "region: europe-west1, network: projects/123456789012/global/networks/n"
    private = VertexEndpoints(parse_target(text.replace("region: europe-west1", network), "target.yaml"), clients)
    with pytest.raises(UsageError, match="a private endpoint serves one version"):
        private.deploy("toy", "1", 10)
    assert private.deploy("toy", "1", None).endpoint.url.startswith("http://")


def test_the_target_says_how_releases_are_made() -> None:
    config = parse_target(
        """
kind: vertex
pipeline_root: gs://example-bucket/root/
labels: {team: risk}
vertex:
  project: example-project
  region: europe-west1
  network: projects/1/global/networks/n
  cmek_key: projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k
deploy:
  kind: vertex
  endpoint: loans
  machine: n1-standard-4
  accelerator: {type: NVIDIA_TESLA_T4, count: 2}
  min_replicas: 2
  max_replicas: 6
  target_cpu_percent: 75
  service_account: server@example-project.iam.gserviceaccount.com
  dedicated: true
  traffic_percent: 10
  drain_s: 90
""",
        "target.yaml",
    )
    settings = release_settings(config, "registry.example.com/serving@sha256:00")
    assert vars(settings) == {
        "models_uri": "gs://example-bucket/root/models",
        "serving_image": "registry.example.com/serving@sha256:00",
        "labels": {"team": "risk"},
        "endpoint": "loans",
        "machine": "n1-standard-4",
        "accelerator": "NVIDIA_TESLA_T4",
        "accelerator_count": 2,
        "min_replicas": 2,
        "max_replicas": 6,
        "target_cpu_percent": 75,
        "service_account": "server@example-project.iam.gserviceaccount.com",
        "dedicated": True,
        "private": False,
        "network": "projects/1/global/networks/n",
        "cmek_key": "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k",
        "traffic_percent": 10,
        "drain_s": 90,
    }
    release = vertex_release(config, "registry.example.com/serving@sha256:00")
    assert type(settings).parse(release.settings or {}) == settings
    assert "schedule_time" in release.scheduled
    assert "create_time" in release.created
