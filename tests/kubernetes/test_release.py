"""Releases on KServe: a version is ready and tried before it gets traffic, and a cut-off step goes on."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from cluster_fake import SHAPES
from released import SETTINGS, World

from tidemill.errors import PlatformError, UsageError
from tidemill.files import write_json
from tidemill.kserve import services, trials
from tidemill.kserve.cluster import Cluster
from tidemill.kserve.run import Place, release, roll_out, rollback, run
from tidemill.kserve.services import Predictor, manifest
from tidemill.kserve.settings import KserveSettings
from tidemill.serving.client import Answer, Client


def test_the_first_version_gets_all_the_traffic_whatever_its_share(world: World) -> None:
    version = world.register()
    report = release(world.place(), version, traffic_percent=10)
    assert report.traffic == {"1": 100}
    assert world.store.aliases().champion == version
    assert (report.former, report.retired, report.changed, report.answer) == (None, (), True, {"predictions": [1.0]})


def test_a_version_is_asked_before_traffic_moves_and_the_old_one_goes_last(world: World) -> None:
    release(world.place(), world.register(), 100)
    world.cluster.did.clear()
    report = release(world.place(), world.register(), 100)
    assert world.cluster.did == [
        "create inferenceservices lending-v2",
        "ask lending-v2",
        "change httproutes lending",
        "delete inferenceservices lending-v1",
    ]
    assert (report.former, report.retired, world.traffic) == (1, (1,), {2: 100})
    assert world.store.aliases().champion == 2


def test_with_a_share_the_champion_keeps_the_rest_and_stays_champion(world: World) -> None:
    release(world.place(), world.register(), 100)
    release(world.place(), world.register(), 10)
    assert world.traffic == {1: 90, 2: 10}
    assert world.served == ["lending-v1", "lending-v2"]
    assert (world.store.aliases().champion, world.store.aliases().challenger) == (1, 2)
    release(world.place(), 2, 50)
    assert world.traffic == {1: 50, 2: 50}
    report = release(world.place(), 2, 100)
    assert (world.traffic, world.served, report.former) == ({2: 100}, ["lending-v2"], 1)
    assert world.store.aliases().champion == 2


def test_another_challenger_takes_the_share_of_the_one_before(world: World) -> None:
    for share in (100, 10, 20):
        release(world.place(), world.register(), share)
    assert world.traffic == {1: 80, 3: 20}
    assert world.served == ["lending-v1", "lending-v3"]


def test_what_is_applied_is_what_the_settings_say(world: World) -> None:
    settings = KserveSettings(
        min_replicas=2, max_replicas=4, cpu="2", memory="4Gi", image="r/serving@sha256:cd", labels={"team": "credit"}
    )
    release(world.place(settings), world.register(), 100)
    service = world.cluster.object("inferenceservices", "lending-v1")
    assert service is not None
    predictor = service["spec"]["predictor"]
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert service["metadata"]["annotations"]["tidemill/digest"] == world.store.manifest(1).digest
    assert service["metadata"]["labels"]["team"] == "credit"
    assert predictor["model"]["storageUri"] == "pvc://tidemill-store/registry/lending/1"
    assert predictor["model"]["image"] == "r/serving@sha256:cd"
    assert predictor["model"]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleMetric"]) == (2, 4, "cpu")
    route = world.cluster.object("httproutes", "lending")
    assert route is not None
    assert route["metadata"]["annotations"] == {"tidemill/champion": "1", "tidemill/image": "control@sha256:ab"}
    assert route["spec"]["parentRefs"] == [{"name": "tidemill"}]


def test_the_report_has_a_request_for_the_shell(world: World) -> None:
    report = release(world.place(), world.register(), 100)
    assert report.url == "https://models.example.com/v1/models/lending:predict"
    assert "-H 'Host: models.example.com'" in report.curl
    assert '"job": "l\'"\'"\'été"' in report.curl
    within = release(world.place(KserveSettings()), 1, 100)
    assert within.url == "http://lending-v1-predictor.tidemill.svc/v1/models/lending:predict"


def test_the_step_writes_its_deployment(world: World, tmp_path: Path) -> None:
    version = world.register()
    write_json(tmp_path / "registered" / "registered.json", {"name": "lending", "version": version})
    settings = {"traffic_percent": 100.0, "min_replicas": 1.0, "ready_timeout_s": 60.0}
    run(tmp_path / "registered", tmp_path / "registry", "tidemill", settings, tmp_path / "out", None)
    told = json.loads((tmp_path / "out" / "deployment.json").read_text())
    assert (told["version"], told["traffic"]) == (1, {"1": 100})


class TestAVersionThatIsNotFit:
    def test_one_that_answers_otherwise_gets_no_traffic(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        with pytest.raises(PlatformError, match="must answer a test row as it did in the rehearsal"):
            release(world.place(), world.register(answer=7.5), 100)
        assert world.traffic == {1: 100}
        assert world.store.aliases().champion == 1

    def test_one_that_is_not_ready_in_time_is_told_with_its_reasons(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        version, controller = world.register(), world.cluster.controller("lending-v2")
        controller.ready_after = None
        controller.status = {
            "conditions": [
                {"type": "PredictorReady", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "0/1"}
            ]
        }
        waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image r/serving:9"}
        world.cluster.pod(
            "lending-v2-predictor-x",
            "Pending",
            {"serving.kserve.io/inferenceservice": "lending-v2"},
            containerStatuses=[{"name": "kserve-container", "state": {"waiting": waiting}}],
        )
        world.cluster.events += [
            {
                "metadata": {},
                "type": kind,
                "reason": "FailedMount",
                "message": "volume is busy",
                "involvedObject": {"name": "lending-v2-predictor-x"},
            }
            for kind in ("Warning", "Normal")
        ]
        with pytest.raises(PlatformError, match=r"must be ready within 0\.05 s") as told:
            release(world.place(KserveSettings(ready_timeout_s=0.05)), version, 100)  # type: ignore[arg-type]
        assert "PredictorReady: MinimumReplicasUnavailable: 0/1" in str(told.value)
        assert "kserve-container: ImagePullBackOff: Back-off pulling image r/serving:9" in str(told.value)
        assert str(told.value).count("FailedMount: volume is busy") == 1
        assert world.traffic == {1: 100}

    def test_one_that_kserve_calls_failed_is_not_waited_for_to_the_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services, "_PATIENCE_S", 0.02)
        version, controller = world.register(), world.cluster.controller("lending-v1")
        controller.ready_after = None
        failure = {"reason": "RuntimeNotRecognized", "message": "no runtime tidemill-serving"}
        controller.status = {"modelStatus": {"transitionStatus": "InvalidSpec", "lastFailureInfo": failure}}
        with pytest.raises(PlatformError, match="model: RuntimeNotRecognized: no runtime tidemill-serving"):
            release(world.place(), version, 100)

    def test_reasons_that_may_not_be_read_do_not_hide_the_failure(self, world: World) -> None:
        world.cluster.forbidden |= {("list", "pods"), ("list", "events")}
        version = world.register()
        world.cluster.controller("lending-v1").ready_after = None
        with pytest.raises(PlatformError, match="no reason is given"):
            release(world.place(KserveSettings(ready_timeout_s=0)), version, 100)

    def test_one_whose_predictor_stays_unavailable_is_told_after_half_a_minute(self, world: World) -> None:
        version = world.register()
        world.cluster.controller("lending-v1").predict = None
        with pytest.raises(PlatformError, match="status 503: nothing is loaded"):
            release(world.place(), version, 100)
        assert 25 < sum(world.paused) < 35

    def test_one_that_refuses_the_row_is_not_asked_again(self, world: World) -> None:
        version = world.register()
        world.cluster.controller("lending-v1").predict = lambda body: (400, {"error": "feature age: not a number"})
        with pytest.raises(PlatformError, match="status 400: feature age: not a number"):
            release(world.place(), version, 100)
        assert world.paused == []

    def test_one_that_is_reached_a_little_later_is_not_given_up(self, world: World) -> None:
        """Names and addresses of ready pods take seconds to reach the nodes."""
        version, controller = world.register(), world.cluster.controller("lending-v1")
        predict, lags = controller.predict, iter([(503, {"error": "no endpoints"})] * 3)
        assert predict is not None
        controller.predict = lambda body: next(lags, None) or predict(body)
        assert release(world.place(), version, 100).traffic == {"1": 100}
        assert len(world.paused) == 3

    def test_one_whose_name_is_not_known_yet_is_not_given_up(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version, send, lags = world.register(), trials.Client.post, iter(range(3))

        def post(client: Client, path: str, value: Any) -> Answer:
            if next(lags, None) is not None:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return send(client, path, value)

        monkeypatch.setattr(trials.Client, "post", post)
        assert release(world.place(), version, 100).traffic == {"1": 100}

    def test_one_that_is_never_reached_is_told(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def post(client: Client, path: str, value: Any) -> Answer:
            raise ConnectionRefusedError("refused")

        monkeypatch.setattr(trials.Client, "post", post)
        with pytest.raises(PlatformError, match=r"ConnectionRefusedError(.|\n)*the network policies"):
            release(world.place(), world.register(), 100)

    def test_a_model_whose_name_leaves_no_room_for_kserves_is_refused(self) -> None:
        with pytest.raises(UsageError, match="at most 50 characters"):
            _ = Predictor("m" * 51, 1).name
        assert len(Predictor("m" * 50, 1).backend) == 63

    def test_a_version_that_is_not_registered_is_refused(self, world: World) -> None:
        with pytest.raises(UsageError, match="no version 3 is registered"):
            release(world.place(), 3, 100)


class TestRetries:
    """A step that was cut off at any point is run again and comes to the same end."""

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PATCH", r".*/inferenceservices/lending-v2"),
            ("GET", r".*/inferenceservices/lending-v2"),
            ("PATCH", r".*/httproutes/lending"),
            ("DELETE", r".*/inferenceservices/lending-v1"),
        ],
    )
    @pytest.mark.parametrize("after", [False, True])
    def test_a_release_that_broke_off_is_completed(self, world: World, method: str, path: str, after: bool) -> None:
        release(world.place(), world.register(), 100)
        version = world.register()
        world.cluster.fail(method, path, 500, after=after)
        with pytest.raises(PlatformError, match="500"):
            release(world.place(), version, 100)
        report = release(world.place(), version, 100)
        assert (world.traffic, world.served, report.former) == ({2: 100}, ["lending-v2"], 1)
        aliases = world.store.aliases()
        assert (aliases.champion, aliases.former) == (2, (1,))

    def test_a_second_call_changes_nothing(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        release(world.place(), world.register(), 100)
        events, did = world.store.events(), len(world.cluster.did)
        report = release(world.place(), 2, 100)
        assert (report.changed, report.former) == (False, 1)
        assert world.store.events() == events
        assert world.cluster.did[did:] == ["ask lending-v2"]

    def test_an_unavailable_server_is_asked_again(self, world: World) -> None:
        version = world.register()
        world.cluster.fail("PATCH", ".*", 503, times=3)
        release(world.place(), version, 100)
        assert world.traffic == {1: 100}

    def test_a_route_that_another_changes_meanwhile_is_read_anew(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        version, times = world.register(), iter(range(2))

        def meddle(plural: str, name: str) -> None:
            if plural == "httproutes" and next(times, None) is not None:
                world.cluster.edit(plural, name, "kubectl", lambda route: route["spec"].update(hostnames=["x.example"]))

        world.cluster.before_apply = meddle
        release(world.place(), version, 100)
        assert world.traffic == {2: 100}

    def test_a_route_that_never_holds_still_is_given_up(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        version = world.register()
        world.cluster.before_apply = lambda plural, name: (
            world.cluster.edit(plural, name, "kubectl", lambda route: None) if plural == "httproutes" else None
        )
        with pytest.raises(PlatformError, match="must not have been changed meanwhile"):
            release(world.place(), version, 100)


class TestRollback:
    def test_it_goes_back_to_the_champion_before_once(self, world: World) -> None:
        for _ in range(3):
            release(world.place(), world.register(), 100)
        report = rollback(world.place(), leave=3)
        assert (report.version, report.former, world.traffic) == (2, 3, {2: 100})
        assert world.store.aliases().champion == 2
        again = rollback(world.place(), leave=3)
        assert (again.version, again.changed, world.store.aliases().champion) == (2, False, 2)

    def test_a_challenger_is_left_for_the_champion(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        release(world.place(), world.register(), 25)
        report = rollback(world.place(), leave=2)
        assert (report.version, world.traffic, world.served) == (1, {1: 100}, ["lending-v1"])
        assert world.store.aliases().champion == 1

    def test_one_that_broke_off_is_completed(self, world: World) -> None:
        for _ in range(2):
            release(world.place(), world.register(), 100)
        world.cluster.fail("PATCH", ".*/httproutes/lending", 500, after=True)
        with pytest.raises(PlatformError, match="500"):
            rollback(world.place(), leave=2)
        rollback(world.place(), leave=2)
        assert (world.traffic, world.store.aliases().champion) == ({1: 100}, 1)

    def test_there_must_be_something_to_go_back_to(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        with pytest.raises(UsageError, match="no former champion"):
            rollback(world.place(), leave=1)

    def test_by_hand_the_challenger_is_the_default(self, world: World, tmp_path: Path) -> None:
        where = (tmp_path / "registry", "tidemill", {}, tmp_path / "out", None)
        with pytest.raises(UsageError, match="no version is registered"):
            roll_out("lending", 0, False, 100, *where)
        world.register()
        roll_out("lending", 0, False, 100, *where)
        world.register()
        assert roll_out("lending", 0, False, 30, *where).traffic == {"1": 70, "2": 30}
        assert roll_out("lending", 2, True, 100, *where).traffic == {"1": 100}


class TestRefusals:
    """What Kubernetes refuses, and how it is told."""

    def test_a_verb_that_is_not_granted(self, world: World) -> None:
        version = world.register()
        world.cluster.forbidden.add(("patch", "inferenceservices"))
        with pytest.raises(PlatformError, match="grant `patch and create inferenceservices` in namespace tidemill"):
            release(world.place(), version, 100)

    def test_a_token_that_is_not_known(self, world: World) -> None:
        version = world.register()
        place = world.place()
        world.cluster.token = "another"
        with pytest.raises(PlatformError, match="who asks is not known"):
            release(place, version, 100)

    @pytest.mark.parametrize(
        ("kind", "remedy"),
        [
            ("inferenceservices", "install KServe and the Gateway API"),
            ("httproutes", r"install what it belongs to \(gateway\.networking\.k8s\.io\)"),
        ],
    )
    def test_a_kind_that_is_not_installed(self, world: World, kind: str, remedy: str) -> None:
        version = world.register()
        world.cluster.kinds.remove(kind)
        with pytest.raises(PlatformError, match=remedy):
            release(world.place(), version, 100)

    def test_a_namespace_that_does_not_exist(self, world: World) -> None:
        place = Place(Cluster("elsewhere"), world.store, SETTINGS)
        with pytest.raises(PlatformError, match="its kind and namespace must exist"):
            release(place, world.register(), 100)

    def test_a_misspelt_field(self, world: World) -> None:
        value = manifest(Predictor("lending", 1), "ab", SETTINGS)
        value["spec"]["predictor"]["model"]["storageURI"] = "pvc://x"
        with pytest.raises(UsageError, match=r'unknown field "spec\.predictor\.model\.storageURI"'):
            world.place().cluster.apply(services.SERVICES, value)

    def test_values_that_its_webhook_denies(self, world: World) -> None:
        settings = KserveSettings(min_replicas=3, max_replicas=2)
        with pytest.raises(UsageError, match="MinReplicas cannot be greater than MaxReplicas"):
            release(world.place(settings), world.register(), 100)

    def test_a_label_that_is_none(self, world: World) -> None:
        settings = KserveSettings(labels={"team": "a b"})
        with pytest.raises(UsageError, match=r"metadata\.labels: Invalid value"):
            release(world.place(settings), world.register(), 100)

    def test_a_route_of_another_model_is_not_taken(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        other = world.cluster.object("httproutes", "lending")
        assert other is not None
        other["metadata"]["labels"]["tidemill/model"] = "income"
        with pytest.raises(UsageError, match="must be that of model lending"):
            release(world.place(), 1, 100)
        del other["metadata"]["labels"]["tidemill/model"]
        with pytest.raises(UsageError, match="not tidemill's"):
            release(world.place(), 1, 100)

    def test_a_server_that_is_not_there(self, world: World, tmp_path: Path) -> None:
        world.cluster.address = "http://127.0.0.1:9"
        world.cluster.kubeconfig(tmp_path / "kubeconfig")
        with pytest.raises(PlatformError, match="nothing listens there"):
            release(world.place(), world.register(), 100)

    def test_without_any_configuration(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from kubernetes.config import kube_config

        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nowhere"))
        with pytest.raises(UsageError, match="kubeconfig: must name the cluster"):
            Cluster("tidemill")

    @pytest.mark.parametrize(
        ("query", "kind", "message"),
        [
            ([("force", "true")], "application/apply-patch+yaml", "fieldManager: Required value"),
            ([("fieldManager", "x")], "application/merge-patch+json", "unknown format"),
        ],
    )
    def test_an_apply_that_is_none(self, world: World, query: Any, kind: str, message: str) -> None:
        from kubernetes.client.exceptions import ApiException

        path = "/apis/serving.kserve.io/v1beta1/namespaces/tidemill/inferenceservices/lending-v1"
        value = manifest(Predictor("lending", 1), "ab", SETTINGS)
        with pytest.raises(ApiException, match=message):
            world.place().cluster._client.call_api(
                path, "PATCH", {}, query, {"Content-Type": kind}, body=value, auth_settings=["BearerToken"]
            )

    def test_fields_that_another_manager_owns_are_not_taken_without_force(self, world: World) -> None:
        from kubernetes.client.exceptions import ApiException

        release(world.place(), world.register(), 100)
        world.cluster.edit("httproutes", "lending", "kubectl", lambda r: r["spec"].update(hostnames=["x.example"]))
        path = "/apis/gateway.networking.k8s.io/v1/namespaces/tidemill/httproutes/lending"
        value = world.cluster.object("httproutes", "lending")
        assert value is not None
        value = json.loads(json.dumps(value)) | {"spec": {"parentRefs": [{"name": "x"}], "rules": []}}
        del value["metadata"]["resourceVersion"]
        with pytest.raises(ApiException, match='conflict with \\\\"kubectl'):
            world.place().cluster._client.call_api(
                path,
                "PATCH",
                {},
                [("fieldManager", "tidemill")],
                {"Content-Type": "application/apply-patch+yaml"},
                body=value,
                auth_settings=["BearerToken"],
            )


def test_settings_are_read_strictly() -> None:
    assert KserveSettings.parse({"min_replicas": 2.0, "labels": {"a": "b"}}).min_replicas == 2
    with pytest.raises(
        UsageError, match=r"gatewy is unknown; cpu must be of type str; min_replicas must be of type int"
    ):
        KserveSettings.parse({"gatewy": "x", "cpu": 2, "min_replicas": 1.5})


def test_lists_are_read_to_their_last_page(world: World) -> None:
    world.cluster.page = 1
    for share in (100, 10):
        release(world.place(), world.register(), share)
    assert {p.version for p in services.of_model(world.place().cluster, "lending")} == {1, 2}


def test_the_fakes_fields_are_those_of_the_real_kinds() -> None:
    """What is applied, and every field that the fake knows, is in the CRDs of KServe, the Gateway API and Trainer."""
    import sys

    sys.path.append(str(Path(__file__).parents[1] / "manifests"))
    import tools
    from schemas import Schemas

    try:
        kinds = ("inferenceservices.yaml", "httproutes.yaml", "trainjobs.yaml")
        schemas = Schemas([path for path in tools.crds() if path.name.endswith(kinds)])
    except tools.Missing as reason:
        pytest.skip(str(reason))
    schemas.validate(manifest(Predictor("lending", 1), "ab", KserveSettings(image="r@sha256:ab", max_replicas=3)))
    sample = {str: "x", int: 1, bool: True, dict: {"a": "b"}}
    for shape in SHAPES.values():
        value = _filled(shape, sample)
        value["metadata"] = {"name": "lending"}
        unknown = [e for e in _faults(schemas, value) if "dditional" in e]
        assert not unknown


def _filled(shape: Any, sample: dict[type, Any]) -> Any:
    if isinstance(shape, dict):
        return {name: _filled(part, sample) for name, part in shape.items()}
    if isinstance(shape, list):
        return [_filled(shape[0], sample)]
    return shape if isinstance(shape, str) else sample[shape]


def _faults(schemas: Any, value: dict[str, Any]) -> list[str]:
    validator = schemas._validators[(value["apiVersion"], value["kind"])]
    return [error.message for error in validator.iter_errors(value)]
