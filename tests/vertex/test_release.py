"""Releases into Vertex AI: registered with evidence, tried before it gets traffic, and back again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, GateRefused, PlatformError, UsageError
from tidemill.files import digest_tree
from tidemill.vertex.rollout import Rollouts
from tidemill.vertex.settings import Settings

MODEL = "projects/example-project/locations/europe-west1/models/toy"
ENDPOINT = "projects/example-project/locations/europe-west1/endpoints/toy"


def methods(fake: Any, *names: str) -> list[str]:
    """Returns the calls of these methods in their order."""
    called = [entry["method"].rsplit("/", 1)[-1] for entry in fake.requests()]
    return [name for name in called if name in names]


def rollouts(world: Any, **changes: Any) -> Rollouts:
    return Rollouts(world.clients, Settings.parse({**world.settings, **changes}), "toy")


def test_a_registered_version_lies_in_storage_with_its_evidence(world: Any, fake: Any) -> None:
    report = world.register("1")
    model = world.made["1"].root / "model"
    manifest = ModelManifest.read(model)
    assert (report.name, report.version, report.resource) == ("toy", "1", f"{MODEL}@1")
    assert report.path == f"gs://example-bucket/root/models/toy/{manifest.digest}"
    written = {uri.removeprefix(f"{report.path}/"): content for uri, content in fake.objects().items()}
    for file in (p for p in (model / "saved_model").rglob("*") if p.is_file()):
        assert written[file.relative_to(model / "saved_model").as_posix()] == file.read_bytes()
    assert written["model.json"] == (model / "model.json").read_bytes()
    assert json.loads(written["assets.extra/tidemill/sample.json"])["prediction"] == 0.5
    lineage = json.loads(written["assets.extra/tidemill/lineage.json"])
    assert (lineage["run_id"], lineage["model"]["digest"]) == ("run-1", manifest.digest)
    assert lineage["decisions"]["blessing"]["passed"] is True
    assert lineage["environment"]["lock"] == "10cc"
    kept = {name.split("/")[2] for name in written if name.startswith("assets.extra/tidemill/")}
    assert kept == {
        "statistics", "schema", "evaluation", "blessing", "rehearsal", "network", "sample.json", "lineage.json"
    }  # fmt: skip
    registered = json.loads((world.root / "registered-1" / "registered.json").read_text())
    assert registered == {**vars(report), "run_id": "run-1"}


def test_what_arrives_at_model_registry(world: Any, fake: Any) -> None:
    world.settings["cmek_key"] = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
    first, second = world.register("1"), world.register("2")
    one, two = fake.requests("UploadModel")
    assert one["model_id"] == "toy"
    assert "parent_model" not in one
    assert two["parent_model"] == MODEL
    assert "model_id" not in two
    assert one["model"] == {
        "display_name": "toy",
        "version_description": "made by run-1",
        "artifact_uri": first.path,
        "version_aliases": ["challenger"],
        "labels": {
            "team": "risk",
            "tidemill-model": "toy",
            "tidemill-digest": first.digest[:63],
            "tidemill-run": "run-1",
        },
        "container_spec": {
            "image_uri": world.settings["serving_image"],
            "command": ["python3", "-m", "tidemill.serving"],
            "ports": [{"container_port": 8080}],
            "predict_route": "/predict",
            "health_route": "/health",
        },
        "encryption_spec": {"kms_key_name": world.settings["cmek_key"]},
    }
    assert second.version == "2"
    assert world.aliases() == {"default": "1", "challenger": "2"}


def test_the_same_model_keeps_its_version_and_its_evidence(world: Any, fake: Any) -> None:
    first = world.register("1")
    before = fake.objects()
    assert world.register("1", run_id="another-run") == first
    assert fake.objects() == before
    assert len(fake.requests("UploadModel")) == 1


def test_an_upload_whose_answer_was_lost_makes_no_second_version(world: Any, fake: Any) -> None:
    fake.refuse("UploadModel", "UNAVAILABLE", "the connection broke", done=True)
    assert world.register("1").version == "1"
    assert world.aliases() == {"default": "1", "challenger": "1"}


def test_an_upload_that_was_killed_half_way_is_written_over(world: Any, fake: Any) -> None:
    """Without model.json, which is written last, a version isn't complete, and nothing in it is trusted."""
    report = world.register("1")
    complete = fake.objects()
    fake.ask("reset")
    fake.put(f"{report.path}/saved_model.pb", b"half of")
    fake.put(f"{report.path}/assets.extra/tidemill/sample.json", b"{}")
    world.register("1")
    after = fake.objects()
    assert after.keys() == complete.keys()
    lineage = f"{report.path}/assets.extra/tidemill/lineage.json"  # it says when
    assert {uri for uri in complete if complete[uri] != after[uri]} <= {lineage}


def test_two_first_versions_at_once_become_two_versions_of_one_model(world: Any, fake: Any) -> None:
    world.register("1")
    fake.refuse("ListModelVersions", "NOT_FOUND", times=2)  # as if the other had registered just after the look
    assert world.register("2").version == "2"
    assert [sorted(request.keys() & {"model_id", "parent_model"}) for request in fake.requests("UploadModel")] == [
        ["model_id"],
        ["model_id"],
        ["parent_model"],
    ]


def test_the_gates_are_the_same_as_on_this_machine(world: Any, fake: Any) -> None:
    world.made["1"] = run = world.run("1")
    run.judge("blessing", passed=False)
    with pytest.raises(GateRefused, match=r"the blessing must have passed\n  - auc is 0\.8; the limit is 0\.9\."):
        world.register("1")
    run.judge("blessing")
    run.judge("rehearsal", digest="f00d" * 16)
    with pytest.raises(GateRefused, match="the rehearsal must be of this model"):
        world.register("1")
    run.judge("rehearsal")
    (run.root / "model" / "saved_model" / "saved_model.pb").write_text("other")
    with pytest.raises(DataError, match=r"must be what model\.json has the digest of"):
        world.register("1")
    assert fake.requests() == []
    assert fake.objects() == {}


def test_faulty_settings_are_told_all_at_once(world: Any) -> None:
    settings = {"models_uri": 3, "machin": "n1-standard-2", "min_replicas": 1.5, "labels": {"a": 1}, "private": "yes"}
    with pytest.raises(UsageError) as raised:
        Settings.parse(settings)
    for fault in (
        "unknown machin",
        "missing serving_image",
        "models_uri must be str",
        "min_replicas must be int",
        "labels must be Mapping",
        "private must be bool",
    ):
        assert fault in str(raised.value)
    with pytest.raises(UsageError, match="models_uri must begin with gs://"):
        Settings.parse({**world.settings, "models_uri": "/models"})
    assert Settings.parse({**world.settings, "min_replicas": 2.0}).min_replicas == 2  # KFP's numbers are floats


def test_there_is_no_champion_at_first(world: Any) -> None:
    world.made["1"] = world.run("1")
    assert world.find_champion().version is None
    assert list((world.root / "champion").iterdir()) == []
    assert list((world.root / "reference").iterdir()) == []


def test_the_champion_is_handed_out_as_it_was_registered(world: Any) -> None:
    world.release("1")
    world.register("2")
    assert world.find_champion().version == "1"
    run = world.made["1"].root
    assert digest_tree(world.root / "champion") == digest_tree(run / "model")
    assert digest_tree(world.root / "reference") == digest_tree(run / "statistics")


def test_the_first_release_makes_the_endpoint_and_the_champion(world: Any, fake: Any) -> None:
    world.settings |= {
        "accelerator": "NVIDIA_TESLA_T4",
        "min_replicas": 2.0,
        "max_replicas": 5.0,
        "target_cpu_percent": 70,
        "service_account": "server@example-project.iam.gserviceaccount.com",
        "cmek_key": "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k",
    }
    report = world.release("1")
    endpoint = world.endpoint()
    assert (report.address, report.version, report.former) == (ENDPOINT, "1", None)
    assert report.answer["predictions"] == [0.5]
    assert report.url == f"https://europe-west1-aiplatform.googleapis.com/v1/{ENDPOINT}:predict"
    assert "gcloud auth print-access-token" in report.curl
    assert '{"instances": [{"age": 1.0}]}' in report.curl
    assert json.loads((world.root / "deployment-1" / "deployment.json").read_text())["traffic"] == {"1": 100}
    assert world.traffic() == {"1": 100}
    assert world.aliases() == {"default": "1", "champion": "1"}
    assert {request["endpoint_id"]: request["endpoint"] for request in fake.requests("CreateEndpoint")} == {
        identity: {
            "display_name": identity,
            "labels": {"team": "risk", label: "toy"},
            "encryption_spec": {"kms_key_name": world.settings["cmek_key"]},
        }
        for identity, label in (("toy", "tidemill-model"), ("toy-smoke-1", "tidemill-trial"))
    }
    trial, real = fake.requests("DeployModel")
    assert (trial["endpoint"], trial["traffic_split"]) == (f"{ENDPOINT}-smoke-1", {"0": 100})
    assert trial["deployed_model"]["dedicated_resources"]["max_replica_count"] == 1
    assert real["endpoint"] == ENDPOINT
    assert "traffic_split" not in real  # it gets its traffic by a call of its own
    deployed = real["deployed_model"]
    assert deployed["model"] == f"{MODEL}@1"
    assert deployed["service_account"] == "server@example-project.iam.gserviceaccount.com"
    assert deployed["dedicated_resources"] == {
        "machine_spec": {
            "machine_type": "n1-standard-2",
            "accelerator_type": "NVIDIA_TESLA_T4",
            "accelerator_count": 1,
        },
        "min_replica_count": 2,
        "max_replica_count": 5,
        "autoscaling_metric_specs": [
            {"metric_name": "aiplatform.googleapis.com/prediction/online/cpu/utilization", "target": 70}
        ],
    }
    assert [model.id for model in endpoint.deployed_models] == [deployed["id"]]


def test_the_next_release_takes_over_and_the_former_version_is_retired_last(world: Any, fake: Any) -> None:
    world.release("1")
    before = len(fake.requests())
    report = world.release("2")
    assert (report.version, report.former, report.traffic, report.retired) == ("2", "1", {"2": 100}, ("1",))
    assert world.traffic() == {"2": 100}
    assert [model.model_version_id for model in world.endpoint().deployed_models] == ["2"]
    assert world.aliases() == {"default": "1", "champion": "2", "former-1": "1"}
    steps = [entry["method"].rsplit("/", 1)[-1] for entry in fake.requests()[before:]]
    wanted = ("DeployModel", "Predict", "UndeployModel", "UpdateEndpoint", "MergeVersionAliases", "DeleteEndpoint")
    assert [step for step in steps if step in wanted] == [
        "DeployModel",  # to an endpoint of its own
        "Predict",
        "UndeployModel",
        "DeleteEndpoint",
        "DeployModel",  # beside the champion, without traffic
        "UpdateEndpoint",
        "Predict",
        "MergeVersionAliases",
        "MergeVersionAliases",
        "UndeployModel",
    ]
    assert world.endpoint("toy-smoke-2") is None


def test_a_repeated_step_changes_nothing(world: Any, fake: Any) -> None:
    first = world.release("1")
    before = len(fake.requests())
    again = world.deploy("1")
    assert (again.version, again.traffic, again.answer["predictions"]) == ("1", {"1": 100}, first.answer["predictions"])
    changing = ("CreateEndpoint", "DeployModel", "UndeployModel", "UpdateEndpoint", "MergeVersionAliases")
    assert not [e for e in fake.requests()[before:] if e["method"].rsplit("/", 1)[-1] in changing]


@pytest.mark.parametrize(
    "method",
    [
        "ListModelVersions",
        "ListEndpoints",
        "CreateEndpoint",
        "DeployModel",
        "Predict",
        "UndeployModel",
        "DeleteEndpoint",
        "UpdateEndpoint",
        "MergeVersionAliases",
    ],
)
@pytest.mark.parametrize("done", [False, True])
def test_a_step_that_is_cut_off_anywhere_is_finished_by_the_next_try(
    world: Any, fake: Any, method: str, done: bool
) -> None:
    """Each call in turn fails for good, before or after it took effect; a second try finds what the first left."""
    world.release("1")
    world.register("2")
    fake.refuse(method, "INTERNAL", "cut off", done=done)
    with pytest.raises(PlatformError, match="cut off"):
        world.deploy("2")
    assert sum(world.traffic().values()) == 100
    report = world.deploy("2")
    assert report.version == "2"
    assert world.traffic() == {"2": 100}
    assert [model.model_version_id for model in world.endpoint().deployed_models] == ["2"]
    assert world.aliases() == {"default": "1", "champion": "2", "former-1": "1"}
    assert [endpoint.display_name for endpoint in _endpoints(world)] == ["toy"]


def _endpoints(world: Any) -> list[Any]:
    return list(world.clients.endpoints.list_endpoints(request={"parent": world.registry}))


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("wrong", "must answer a test row as it did in the rehearsal"),
        ("failing", "The model server answered 500"),
        ("unready", "Model server exited unexpectedly"),
    ],
)
def test_a_version_that_does_not_answer_as_rehearsed_gets_no_traffic(
    world: Any, fake: Any, behaviour: str, message: str
) -> None:
    world.release("1")
    world.register("2")
    fake.set(wrong={f"{MODEL}@2": behaviour})
    before = len(fake.requests("UpdateEndpoint"))
    with pytest.raises((PlatformError, UsageError), match=message):
        world.deploy("2")
    assert len(fake.requests("UpdateEndpoint")) == before
    assert world.traffic() == {"1": 100}
    assert [model.model_version_id for model in world.endpoint().deployed_models] == ["1"]
    assert world.aliases() == {"default": "1", "champion": "1", "challenger": "2"}
    assert world.endpoint("toy-smoke-2") is None


def test_traffic_goes_back_when_the_endpoint_does_not_answer_after_all(world: Any, fake: Any) -> None:
    world.release("1")
    world.register("2")
    rolling = rollouts(world)
    ask, moved = rolling.endpoint.predict, []

    def predict(body: Any) -> Any:
        moved.append(world.traffic())
        fake.set(wrong={f"{MODEL}@2": "failing"})
        return ask(body)

    rolling.endpoint.predict = predict  # type: ignore[method-assign]
    with pytest.raises(PlatformError, match="500"):
        rolling.release(rolling.registry.find("2"), 100)
    assert moved == [{"2": 100}]
    assert world.traffic() == {"1": 100}
    assert world.aliases()["champion"] == "1"


def test_a_share_of_the_traffic_leaves_the_champion_the_champion(world: Any, fake: Any) -> None:
    world.release("1")
    world.register("2")
    world.settings["traffic_percent"] = 10
    report = world.deploy("2")
    assert report.traffic == {"1": 90, "2": 10}
    assert world.aliases() == {"default": "1", "champion": "1", "challenger": "2"}
    answered = [rollouts(world).endpoint.predict({"instances": [{"age": 1}]}) for _ in range(100)]
    assert [answer["modelVersionId"] for answer in answered].count("2") == 10
    world.settings["traffic_percent"] = 100
    assert world.deploy("2").traffic == {"2": 100}
    assert world.aliases() == {"default": "1", "champion": "2", "former-1": "1"}
    assert len([r for r in fake.requests("DeployModel") if r["endpoint"] == ENDPOINT]) == 2


def test_the_first_version_gets_all_of_the_traffic_whatever_its_share(world: Any) -> None:
    world.settings["traffic_percent"] = 10
    world.release("1")
    assert world.traffic() == {"1": 100}
    assert world.aliases()["champion"] == "1"


def test_rollback_goes_along_the_former_champions(world: Any, fake: Any) -> None:
    for content in "123":
        world.release(content)
    assert world.aliases() == {"default": "1", "champion": "3", "former-1": "1", "former-2": "2"}
    outcome = rollouts(world).rollback()
    assert (outcome.version.number, outcome.former, dict(outcome.traffic)) == ("2", "3", {"2": 100})
    assert outcome.retired == ("3",)
    assert world.aliases() == {"default": "1", "champion": "2", "former-1": "1"}
    assert rollouts(world).rollback().version.number == "1"
    with pytest.raises(UsageError, match="there is no former champion to go back to"):
        rollouts(world).rollback()
    assert world.traffic() == {"1": 100}
    assert world.release("3").version == "3"  # and forward again: the same model keeps its version
    assert world.aliases() == {"default": "1", "champion": "3", "former-1": "1"}


def test_rollback_of_a_version_with_a_share_gives_the_champion_all(world: Any) -> None:
    world.release("1")
    world.register("2")
    rolling = rollouts(world)
    rolling.release(rolling.registry.find("2"), 25)
    outcome = rolling.rollback()
    assert (outcome.version.number, outcome.former, dict(outcome.traffic)) == ("1", "2", {"1": 100})
    assert outcome.retired == ("2",)
    assert world.aliases() == {"default": "1", "champion": "1"}


def test_the_same_version_on_another_machine_is_rolled_out_like_another_version(world: Any) -> None:
    world.release("1")
    (before,) = world.endpoint().deployed_models
    world.settings["machine"] = "n1-standard-4"
    report = world.deploy("1")
    (after,) = world.endpoint().deployed_models
    assert report.traffic == {"1": 100}
    assert before.id != after.id
    assert after.dedicated_resources.machine_spec.machine_type == "n1-standard-4"
    assert world.aliases() == {"default": "1", "champion": "1"}


def test_an_endpoint_that_somebody_changes_meanwhile_is_looked_at_again(world: Any, fake: Any) -> None:
    world.release("1")
    fake.refuse("UpdateEndpoint", "ABORTED", "The etag does not match", times=2)
    world.release("2")
    assert world.traffic() == {"2": 100}
    assert all("etag" in request["endpoint"] for request in fake.requests("UpdateEndpoint"))
    fake.refuse("UpdateEndpoint", "ABORTED", "The etag does not match", times=10)
    with pytest.raises(PlatformError, match="while others change it"):
        world.release("3")
    assert world.traffic() == {"2": 100}


def test_traffic_that_came_back_while_it_drained_is_not_cut(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split is looked up afresh after the pause: what somebody gave traffic again stays."""
    world.release("1")
    world.settings["drain_s"] = 30
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if seconds == 30:
            identities = {m.model_version_id: m.id for m in world.endpoint().deployed_models}
            rollouts(world).endpoint.route({identities["1"]: 50, identities["2"]: 50})

    monkeypatch.setattr("tidemill.vertex.rollout.time.sleep", sleep)
    assert world.release("2").retired == ()
    assert 30 in slept
    assert world.traffic() == {"1": 50, "2": 50}


def test_an_endpoint_of_that_name_that_was_made_elsewhere_is_used(world: Any, fake: Any) -> None:
    request = {"parent": world.registry, "endpoint": {"display_name": "loans"}, "endpoint_id": "4711"}
    world.clients.endpoints.create_endpoint(request=request).result()
    world.settings["endpoint"] = "loans"
    assert world.release("1").address.endswith("/endpoints/4711")


def test_several_endpoints_of_one_name_are_not_guessed_between(world: Any) -> None:
    for _ in range(2):
        request = {"parent": world.registry, "endpoint": {"display_name": "toy"}}
        world.clients.endpoints.create_endpoint(request=request).result()
    with pytest.raises(UsageError, match="several have that name"):
        world.release("1")


def test_an_endpoint_that_is_reached_in_another_way_is_refused(world: Any) -> None:
    world.release("1")
    world.settings["dedicated"] = True
    with pytest.raises(UsageError, match=r"must be as `deploy` says .*public and shared"):
        world.deploy("1")


def test_a_private_endpoint_is_tried_and_asked_from_within(world: Any, fake: Any) -> None:
    """It has one deployed model at a time: the next one takes its place."""
    network = "projects/123456789012/global/networks/example"
    world.settings |= {"private": True, "network": network}
    first = world.release("1")
    assert first.url.startswith("http://127.0.0.1:")
    assert "print-access-token" not in first.curl
    assert first.answer["predictions"] == [0.5]
    assert {r["endpoint"]["network"] for r in fake.requests("CreateEndpoint")} == {network}
    second = world.release("2")
    assert (second.traffic, second.former) == ({"2": 100}, "1")
    assert fake.requests("Predict") == []
    fake.set(wrong={f"{MODEL}@3": "wrong"})
    world.register("3")
    with pytest.raises(PlatformError, match="as it did in the rehearsal"):
        world.deploy("3")
    assert world.traffic() == {"2": 100}


def test_only_what_is_a_prediction_request_is_sent(world: Any) -> None:
    world.release("1")
    with pytest.raises(UsageError, match=r"takes `instances` and `parameters` .*inputs"):
        rollouts(world).endpoint.predict({"inputs": []})
    with pytest.raises(UsageError, match=r"`tidemill deploy other` makes it"):
        Rollouts(world.clients, Settings.parse(world.settings), "other").endpoint.get()


def test_an_endpoints_own_host_may_take_a_while_to_be_known(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is new: until it is known, connections fail in a way that says nothing of the model."""
    from tidemill.vertex.endpoints import ModelEndpoint

    asked: list[str] = []

    def predict(self: Any, body: Any) -> Any:
        asked.append(self.name)
        if len(asked) < 3:
            raise PlatformError(self.name, "its host cannot be found") from ConnectionError("Name or service not known")
        endpoint = self.get()
        return {"predictions": [0.5], "deployedModelId": endpoint.deployed_models[0].id}

    monkeypatch.setattr(ModelEndpoint, "predict", predict)
    world.settings["dedicated"] = True
    assert world.release("1").version == "1"
    assert asked[:3] == ["toy-smoke-1"] * 3
    asked.clear()
    monkeypatch.setattr("tidemill.vertex.rollout._SETTLED_S", 0.0)
    with pytest.raises(PlatformError, match="its host cannot be found"):
        world.release("2")
    assert world.traffic() == {"1": 100}


def test_an_endpoint_that_another_makes_at_the_same_moment_is_used(
    world: Any, monkeypatch: pytest.MonkeyPatch, fake: Any
) -> None:
    from tidemill.vertex.endpoints import ModelEndpoint

    world.release("1")
    find, looks = ModelEndpoint.find, []

    def blind(self: Any) -> Any:
        looks.append(self.name)
        return None if looks.count("toy") == 1 and self.name == "toy" else find(self)

    monkeypatch.setattr(ModelEndpoint, "find", blind)
    world.release("2")
    assert [endpoint.display_name for endpoint in _endpoints(world)] == ["toy"]
    assert world.traffic() == {"2": 100}


def test_a_deployment_that_another_call_is_at_is_told(world: Any, fake: Any) -> None:
    world.release("1")
    world.register("2")
    fake.refuse("DeployModel", "ALREADY_EXISTS", "A DeployedModel with ID 1 exists already")
    with pytest.raises(PlatformError, match="must be deployed by one call at a time") as raised:
        world.deploy("2")
    assert "run this again when that has ended" in str(raised.value.remedy)


def test_a_service_that_stays_unavailable_stops_a_creation_in_time(world: Any, fake: Any) -> None:
    fake.refuse("UploadModel", "UNAVAILABLE", "the service is drowning", times=1000)
    with pytest.raises(PlatformError, match="the service is drowning"):
        world.register("1")


def test_a_private_endpoint_that_cannot_be_asked_says_from_where(world: Any, fake: Any) -> None:
    world.settings |= {"private": True, "network": "projects/123456789012/global/networks/example"}
    world.release("1")
    fake.set(wrong={f"{MODEL}@1": "failing"})
    endpoint = rollouts(world).endpoint
    with pytest.raises(PlatformError, match="status 500"):
        endpoint.predict({"instances": [{"age": 1}]})
    (deployed,) = world.endpoint().deployed_models
    endpoint.undeploy(deployed.id)
    with pytest.raises(UsageError, match="has no deployed model"):
        endpoint.predict({"instances": [{"age": 1}]})
    fake.set(http="http://127.0.0.1:1")
    with pytest.raises(PlatformError, match="ConnectionRefused") as raised:
        world.release("2")
    assert "from within its network, projects/123456789012" in str(raised.value.remedy)


@pytest.mark.parametrize("name", ["Loans (production)", "x" * 90, "7-models"])
def test_any_name_makes_a_legal_endpoint(world: Any, name: str) -> None:
    world.settings["endpoint"] = name
    assert world.release("1").version == "1"
    assert world.endpoint(name) is not None
