"""What a cluster serves, asked and changed from outside: changes are runs in the cluster, where the registry is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kfp_fake import KfpFake
from released import ROW, World

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.config import parse_target
from tidemill_pipelines.targets.kubernetes import endpoints as served
from tidemill_pipelines.targets.kubernetes.endpoints import KubernetesEndpoints

CONFIG = """
kind: kubernetes
pipeline_root: s3://example-bucket/tidemill
images: {registry: registry.example.com/tidemill}
kubernetes: {host: '%s'}
deploy: {kind: kubernetes, ready_timeout_s: 1, traffic_percent: 25%s}
"""


def endpoints(kfp: KfpFake, more: str = "") -> KubernetesEndpoints:
    return KubernetesEndpoints(parse_target(CONFIG % (kfp.address, more), "target"), pause=lambda seconds: None)


def test_a_version_is_deployed_and_left_by_runs_in_the_cluster(executing: KfpFake, world: World) -> None:
    target = endpoints(executing)
    world.register()
    first = target.deploy("lending", None, None)
    assert (first.version, first.former, first.traffic, first.changed) == ("1", None, {"1": 100}, True)
    world.register()
    canary = target.deploy("lending", None, None)
    assert (canary.version, canary.former, canary.traffic) == ("2", "1", {"1": 75, "2": 25})
    assert target.rollback("lending").traffic == {"1": 100}
    whole = target.deploy("lending", "2", 100)
    assert (whole.version, whole.traffic, whole.retired) == ("2", {"2": 100}, ("1",))
    assert not target.deploy("lending", "2", 100).changed
    back = target.rollback("lending")
    assert (back.version, back.former, back.retired) == ("1", "2", ("2",))
    assert world.store.aliases().champion == 1
    assert len(executing.runs) == 6


def test_the_run_has_the_image_of_the_step_before_it(executing: KfpFake, world: World) -> None:
    target = endpoints(executing)
    world.register()
    target.deploy("lending", None, None)
    target.deploy("lending", "1", 100)
    images = [
        next(iter(v["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()))["container"]["image"]
        for v in executing.versions.values()
    ]
    assert images == ["registry.example.com/tidemill/control:0.1.0", "control@sha256:ab"]


def test_what_is_served_is_told(executing: KfpFake, world: World) -> None:
    target = endpoints(executing, ", address: 'https://models.example.com'")
    for _ in range(2):
        world.register()
        target.deploy("lending", None, None)
    (endpoint,) = target.status(None)
    assert endpoint.url == "https://models.example.com/v1/models/lending:predict"
    assert [(v.version, v.traffic_percent, v.ready) for v in endpoint.versions] == [("1", 75, True), ("2", 25, True)]
    assert endpoint.versions[0].detail == "1 to 1 replicas"
    told = [(m.version, m.aliases, m.digest == world.store.manifest(int(m.version)).digest) for m in target.models()]
    assert told == [("2", ("challenger",), True), ("1", ("champion",), True)]
    controller = world.cluster.controller("lending-v2")
    controller.ready_after = None
    controller.status = {"conditions": [{"type": "PredictorReady", "status": "False", "message": "0 of 1 available"}]}
    assert target.status("lending")[0].versions[1].detail == "0 of 1 available"
    controller.status = {}
    assert target.status("lending")[0].versions[1].detail == "not ready yet"
    del world.cluster.objects[("tidemill", "inferenceservices", "lending-v2")]
    assert target.status("lending")[0].versions[1].detail == "its InferenceService is gone"


def test_predictions_go_through_the_api_server_where_no_gateway_is_known(executing: KfpFake, world: World) -> None:
    target, body = endpoints(executing), {"instances": [ROW]}
    world.register()
    target.deploy("lending", None, None)
    assert target.predict("lending", body) == {"predictions": [1.0]}
    world.cluster.forbidden = {("create", "services/proxy")}
    with pytest.raises(PlatformError, match="grant `create services/proxy`"):
        target.predict("lending", body)
    world.cluster.forbidden = set()
    world.cluster.controller("lending-v1").predict = lambda body: (400, {"error": "feature age: not a number"})
    with pytest.raises(UsageError, match="feature age: not a number"):
        target.predict("lending", body)


def test_predictions_go_to_the_gateway_where_it_is_known(executing: KfpFake, world: World) -> None:
    world.register()
    endpoints(executing).deploy("lending", None, None)
    gateway = world.cluster._predictor("lending-v1")
    target = endpoints(executing, f", hostname: models.example.com, address: '{gateway}'")
    assert target.predict("lending", {"instances": [ROW]}) == {"predictions": [1.0]}
    world.cluster.controller("lending-v1").predict = None
    with pytest.raises(PlatformError, match="503"):
        target.predict("lending", {"instances": [ROW]})
    closed = endpoints(executing, ", address: 'http://127.0.0.1:9'")
    with pytest.raises(PlatformError, match=r"nothing listens there(.|\n)*`deploy\.address`"):
        closed.predict("lending", {"instances": [ROW]})


def test_why_a_run_failed_is_told_in_its_own_words(executing: KfpFake, world: World) -> None:
    target = endpoints(executing)
    with pytest.raises(PlatformError, match="no version is registered"):
        target.deploy("lending", None, None)
    world.register()
    target.deploy("lending", None, None)
    with pytest.raises(PlatformError, match="there is no former champion to go back to"):
        target.rollback("lending")
    world.register(answer=9.0)
    with pytest.raises(PlatformError, match="must answer a test row as it did in the rehearsal"):
        target.deploy("lending", None, None)
    assert world.traffic == {1: 100}
    world.cluster.forbidden = {("list", "pods")}
    with pytest.raises(PlatformError, match="its log cannot be read: is not permitted"):
        target.deploy("lending", None, None)


def test_a_run_that_does_not_end_is_left_to_itself(kfp: KfpFake, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_QUEUE_S", 9)
    world.register()
    with pytest.raises(PlatformError, match=r"must end within 10 s(.|\n)*tidemill runs show"):
        endpoints(kfp).deploy("lending", None, None)


@pytest.mark.parametrize(
    ("version", "percent", "message"),
    [("two", None, "expected a number"), ("1", 0, "1 to 100"), ("1", 101, "1 to 100")],
)
def test_what_means_nothing_is_refused(kfp: KfpFake, world: World, version: str, percent: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        endpoints(kfp).deploy("lending", version, percent)
    assert not kfp.runs


def test_a_model_that_is_not_served_is_told_with_those_that_are(executing: KfpFake, world: World) -> None:
    target = endpoints(executing)
    assert (target.status(None), target.models()) == ([], [])
    world.register()
    target.deploy("lending", None, None)
    for call in (target.rollback, target.status, lambda model: target.predict(model, {})):
        with pytest.raises(UsageError, match="has no endpoint in namespace tidemill; there is lending"):
            call("income")


def test_the_same_code_runs_in_the_pipeline_and_by_hand() -> None:
    """The settings that a compiled pipeline carries are those that a release by hand gets."""
    from tidemill_pipelines.targets.kubernetes.release import kubernetes_release
    from tidemill_pipelines.targets.kubernetes.rollouts import rollout_package

    config = parse_target(CONFIG % ("http://kfp.example.com", ""), "target")
    package = rollout_package(config, "lending", 3, False, 25, None)
    given = package.spec["root"]["dag"]["tasks"]["roll-out"]["inputs"]["parameters"]
    baked = given["settings"]["runtimeValue"]["constant"]
    release = kubernetes_release(config, "tidemill/serving:0.1.0")
    assert json.loads(json.dumps(release.settings)) == {
        k: int(v) if isinstance(v, float) else v for k, v in baked.items()
    }
    assert release.extra(release.register) == {}
    assert release.extra(release.deploy) == {"settings": release.settings}
    pinned = kubernetes_release(config, "registry.example.com/serving@sha256:ab").settings
    assert pinned is not None
    assert pinned["image"] == "registry.example.com/serving@sha256:ab"
