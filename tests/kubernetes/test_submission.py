"""Runs on the KFP fake, by the unmodified client: what arrives there, and that nothing is made twice."""

from __future__ import annotations

import json
import os
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cluster_fake import ClusterFake
from deployable import compiled
from kfp_fake import KfpFake

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.config import parse_target
from tidemill_pipelines.targets.kubernetes import client
from tidemill_pipelines.targets.kubernetes.target import KubernetesTarget
from tidemill_pipelines.targets.kubernetes.told import STATES
from tidemill_pipelines.targets.remote import Submission

CONFIG = """
kind: kubernetes
pipeline_root: s3://example-bucket/tidemill
service_account: tidemill-pipeline
labels: {team: credit}
kubernetes:
  host: %s
"""


@pytest.fixture
def target(kfp: KfpFake) -> KubernetesTarget:
    return KubernetesTarget(parse_target(CONFIG % kfp.address, "target"))


@pytest.fixture
def submission(package: Package) -> Submission:
    return Submission("lending", package, "request-1", {"source": "s3://example-bucket/loans.csv"}, {"run": "nightly"})


def test_nothing_but_loopback_is_reached_from_here() -> None:
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 443), timeout=2)


def test_submitting_twice_with_one_request_id_makes_one_run(
    kfp: KfpFake, target: KubernetesTarget, submission: Submission
) -> None:
    first, second = target.submit(submission), target.submit(submission)
    assert (first.existed, second.existed) == (False, True)
    assert first.id == second.id
    assert len(kfp.runs) == len(kfp.pipelines) == len(kfp.versions) == len(kfp.experiments) == 1
    assert second.request_id == "request-1"
    assert second.labels == {"team": "credit", "run": "nightly"}
    other = target.submit(replace(submission, request_id="request-2"))
    assert other.id != first.id
    assert len(kfp.runs) == 2
    assert len(kfp.versions) == 1


def test_what_arrives_is_what_was_asked_for(kfp: KfpFake, target: KubernetesTarget, submission: Submission) -> None:
    run = target.submit(submission)
    (sent,) = kfp.sent("POST", "/apis/v2beta1/runs")
    version = next(iter(kfp.versions.values()))
    assert sent.json["service_account"] == "tidemill-pipeline"
    assert sent.json["runtime_config"] == {
        "parameters": {"source": "s3://example-bucket/loans.csv"},
        "pipeline_root": "s3://example-bucket/tidemill",
    }
    assert sent.json["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert version["name"] == submission.package.digest[:16]
    assert set(version["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    assert run.url == f"{kfp.address}/#/runs/details/{run.id}"
    assert "request-1" in json.dumps(sent.json["description"])


class TestRequestIds:
    """KFP has none; look-ups, repetitions and races must make one run of one request nonetheless."""

    def test_an_answer_that_was_lost_makes_no_second_run(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        kfp.fail("POST", "/apis/v2beta1/runs", 503, after=True)
        run = target.submit(submission)
        assert list(kfp.runs) == [run.id]
        assert not run.existed

    def test_every_step_may_fail_for_a_while(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        for method, path in (
            ("POST", "/apis/v2beta1/experiments"),
            ("POST", "/apis/v2beta1/pipelines"),
            ("POST", "/apis/v2beta1/pipelines/upload_version"),
            ("POST", "/apis/v2beta1/runs"),
        ):
            kfp.fail(method, path, 503)
            kfp.fail(method, path, 502, after=True)
            kfp.fail(method, path, 429)
        target.submit(submission)
        assert [len(kept) for kept in (kfp.experiments, kfp.pipelines, kfp.versions, kfp.runs)] == [1, 1, 1, 1]

    def test_of_two_at_the_same_moment_the_later_is_cancelled(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = KubernetesTarget(parse_target(CONFIG % kfp.address, "target"))
        seen = KubernetesTarget._requested
        race = iter([True])

        def requested(self: KubernetesTarget, *arguments: Any) -> Any:
            found = seen(self, *arguments)
            if self is target and next(race, False):  # the other submits between our look and our call
                other.submit(submission)
            return found

        monkeypatch.setattr(KubernetesTarget, "_requested", requested)
        run = target.submit(submission)
        states = {own["run_id"]: own["state"] for own in kfp.runs.values()}
        assert run.existed
        assert states.pop(run.id) == "PENDING"
        assert list(states.values()) == ["CANCELING"]

    @pytest.mark.parametrize(
        "change",
        [{"parameters": {"source": "s3://example-bucket/others.csv"}}, {"cache": False}, {"package": None}],
        ids=lambda change: next(iter(change)),
    )
    @pytest.mark.parametrize("older", [False, True])
    def test_an_id_is_of_one_content_alone(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission, change: dict[str, Any], older: bool
    ) -> None:
        """Whoever asks for something else under the same id must not be handed the old run as if it were that."""
        if "package" in change:
            change = {"package": compiled(greeting="good morning")}
        first = target.submit(submission)
        other = replace(submission, **change)
        if older:
            unmarked(kfp)
        told = r"request-1: run .* has it, and is of another content \(got .*; that run: (.|\n)*another --request-id"
        with pytest.raises(UsageError, match=told) as refused:
            target.submit(other)
        assert older or f"{other.digest}; that run: {submission.digest}" in str(refused.value)
        assert len(kfp.runs) == 1
        assert target.submit(submission).id == first.id

    def test_of_a_run_without_a_digest_whose_version_is_gone_nothing_can_be_told(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        first = target.submit(submission)
        unmarked(kfp)
        kfp.versions.clear()
        assert target.submit(replace(submission, cache=False)).id == first.id

    def test_of_two_contents_at_the_same_moment_the_later_is_cancelled_and_told(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other, seen, race = KubernetesTarget(target._config), KubernetesTarget._requested, iter([True])

        def requested(self: KubernetesTarget, *arguments: Any) -> Any:
            found = seen(self, *arguments)
            if self is target and next(race, False):
                other.submit(replace(submission, cache=False))
            return found

        monkeypatch.setattr(KubernetesTarget, "_requested", requested)
        with pytest.raises(UsageError, match="is of another content"):
            target.submit(submission)
        assert sorted(run["state"] for run in kfp.runs.values()) == ["CANCELING", "PENDING"]

    def test_ids_that_look_like_patterns_are_told_apart(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        ids = ["build_1", "build%1", "build-1", "BUILD-1", 'a"b\\c', "ü"]
        assert len({target.submit(replace(submission, request_id=i)).id for i in ids}) == len(ids)
        assert [target.submit(replace(submission, request_id=i)).request_id for i in ids] == ids

    def test_two_that_make_the_same_things_at_once_share_them(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """409 of a name that another has just taken means: found."""
        target.submit(submission)
        kfp.fail("GET", "/apis/v2beta1/pipelines/names/.*", 404)
        for name in ("experiments", "pipelines/.*/versions"):
            kfp.fail("GET", f"/apis/v2beta1/{name}", 200, body="{}")
        monkeypatch.setattr(KubernetesTarget, "_requested", lambda *_: None)
        target.submit(replace(submission, request_id="request-2"))
        assert [len(kept) for kept in (kfp.experiments, kfp.pipelines, kfp.versions)] == [1, 1, 1]


def unmarked(kfp: KfpFake) -> None:
    """Makes the runs those of a tidemill that did not write digests into their descriptions."""
    for run in kfp.runs.values():
        mark = json.loads(run["description"].removeprefix("tidemill "))
        del mark["digest"]
        run["description"] = "tidemill " + json.dumps(mark, sort_keys=True, separators=(",", ":"))


class TestVersions:
    def test_another_content_is_another_version_of_the_same_pipeline(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        target.submit(submission)
        target.submit(replace(submission, request_id="request-2", package=compiled(greeting="good morning")))
        assert (len(kfp.pipelines), len(kfp.versions)) == (1, 2)

    def test_without_cache_every_task_is_made_anew(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        target.submit(submission)
        target.submit(replace(submission, request_id="request-2", cache=False))
        cached = [json.dumps(v["pipeline_spec"]).count("enableCache") for v in kfp.versions.values()]
        assert cached == [1, 0]

    def test_with_several_users_everything_is_in_the_namespace(self, submission: Submission) -> None:
        with KfpFake(multi_user=True, access={"mine": ["tidemill"]}) as kfp:
            target = secured(kfp, "multi_user: true, auth: {method: token, variable: EXAMPLE_TOKEN}", "mine")
            target.submit(submission)
            assert {p["namespace"] for p in kfp.pipelines.values()} == {"tidemill"}
            assert {e["namespace"] for e in kfp.experiments.values()} == {"tidemill"}
            assert len(target.runs(5)) == 1


class TestRuns:
    def test_the_newest_come_first_from_as_many_pages_as_it_takes(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        assert target.runs(10) == []
        made = [target.submit(replace(submission, request_id=str(i))).id for i in range(5)]
        kfp.max_page = 2
        assert [run.id for run in target.runs(10)] == made[::-1]
        assert [run.id for run in target.runs(3)] == made[:1:-1]

    def test_a_run_is_shown_with_its_own_tasks(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        run = target.submit(submission)
        kfp.end(run.id, "RUNNING", {"ingest": "SUCCEEDED", "train": "RUNNING"})
        told = target.run(run.id)
        assert (told.state, told.ended) == ("running", None)
        assert [(task.name, task.state) for task in told.tasks] == [("ingest", "succeeded"), ("train", "running")]
        assert told.tasks[0].ended is not None
        assert told.tasks[1].ended is None
        assert told.parameters == {"source": "s3://example-bucket/loans.csv"}
        kfp.end(run.id, "FAILED", {"ingest": "SUCCEEDED"}, error="step failed")
        nodes = kfp.runs[run.id]["run_details"]["task_details"]
        failed = {"display_name": "train-driver", "state": "FAILED", "start_time": kfp.now()}
        nodes.append({**nodes[-1], **failed})
        told = target.run(run.id)
        assert (told.state, told.error) == ("failed", "step failed")
        assert [task.name for task in told.tasks] == ["ingest", "train-driver"]

    @pytest.mark.parametrize("state", sorted(STATES))
    def test_every_state_has_a_word(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission, state: str
    ) -> None:
        run = target.submit(submission)
        kfp.end(run.id, state)
        assert target.run(run.id).state == STATES[state]

    def test_a_run_of_a_version_that_is_gone_is_shown_without_tasks(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        run = target.submit(submission)
        kfp.end(run.id, "SUCCEEDED", {"ingest": "SUCCEEDED"})
        kfp.versions.clear()
        assert target.run(run.id).tasks == ()

    def test_runs_that_others_made_are_shown_too(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        target.submit(submission)
        for run in kfp.runs.values():
            run["description"] = 'tidemill {"not": "ours"'
        assert target.runs(1)[0].request_id is None

    def test_a_run_is_cancelled_once(self, kfp: KfpFake, target: KubernetesTarget, submission: Submission) -> None:
        run = target.submit(submission)
        assert target.cancel(run.id).state == "cancelling"
        assert target.cancel(run.id).state == "cancelling"
        kfp.end(run.id, "CANCELED")
        assert target.cancel(run.id).state == "cancelled"
        assert len(kfp.sent("POST", ".*:terminate")) == 1

    def test_one_that_ends_while_it_is_cancelled_stays_as_it_is(
        self, kfp: KfpFake, target: KubernetesTarget, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = target.submit(submission)
        look = target.run

        def ends(run_id: str) -> Any:
            found = look(run_id)
            kfp.end(run_id, "SUCCEEDED")
            return found

        monkeypatch.setattr(target, "run", ends)
        assert target.cancel(run.id).state == "succeeded"


class TestLogs:
    NODE = "workflows.argoproj.io/node-name"

    def test_the_pods_of_a_run_are_told_by_task(
        self, kfp: KfpFake, cluster: ClusterFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        run = target.submit(submission)
        label = {"pipeline/runid": run.id}
        nodes = {
            "a": ("lending-x.root.ingest.executor", "read 10 rows\ndone", "Succeeded"),
            "b": ("lending-x.root.ingest-driver", "driver", "Succeeded"),
            "c": ("lending-x.root.release.train.executor(0)", "epoch 1", "Failed"),
            "d": ("lending-x.root.release.train.executor(1)", "epoch 2", "Running"),
            "e": ("lending-x.root.release.deploy-driver", "no such image", "Failed"),
        }
        for name, (node, log, phase) in nodes.items():
            cluster.pod(name, phase, label, log, {self.NODE: node})
        cluster.pod("other", "Running", {"pipeline/runid": "other"}, "not ours", {self.NODE: "x.root.ingest.executor"})
        assert list(target.logs(run.id, "ingest")) == ["read 10 rows", "done"]
        assert list(target.logs(run.id, "train")) == [
            "==> train (c, Failed)",
            "epoch 1",
            "==> train (d, Running)",
            "epoch 2",
        ]
        everything = list(target.logs(run.id, None))
        assert [line for line in everything if line.startswith("==>")][-1] == "==> deploy-driver (e, Failed)"
        assert "driver" not in everything
        with pytest.raises(UsageError, match=r"task report of run .*: has no pod in namespace tidemill"):
            list(target.logs(run.id, "report"))

    def test_why_a_pod_waits_is_told_instead(
        self, kfp: KfpFake, cluster: ClusterFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        run = target.submit(submission)
        label, node = {"pipeline/runid": run.id}, {self.NODE: "x.root.ingest.executor"}
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
        statuses = [{"name": "main", "state": waiting}]
        cluster.pod("a", "Pending", label, annotations=node, containerStatuses=statuses)
        assert list(target.logs(run.id, None)) == ["(has not started: ErrImagePull: not found)"]
        cluster.pods.clear()
        short = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}
        cluster.pod("a", "Pending", label, annotations=node, conditions=[short])
        assert list(target.logs(run.id, None)) == ["(has not started: Unschedulable: no memory)"]
        cluster.pods[0]["status"] = {"phase": "Running"}
        del cluster.logs["a"]
        assert list(target.logs(run.id, None)) == ["(the pod is gone)"]

    def test_what_they_need_is_named(
        self, kfp: KfpFake, cluster: ClusterFake, target: KubernetesTarget, submission: Submission
    ) -> None:
        run = target.submit(submission)
        cluster.pod("a", "Succeeded", {"pipeline/runid": run.id}, "x", {self.NODE: "x.root.ingest.executor"})
        cluster.forbidden = {("get", "pods/log")}
        with pytest.raises(PlatformError, match="grant `get pods/log` in namespace tidemill"):
            list(target.logs(run.id, None))
        cluster.forbidden = {("list", "pods")}
        with pytest.raises(PlatformError, match="grant `list pods` in namespace tidemill"):
            list(target.logs(run.id, None))
        with pytest.raises(UsageError, match="Run nothing not found"):
            list(target.logs("nothing", None))


def secured(kfp: KfpFake, more: str, token: str | None = None, ca_file: Path | None = None) -> KubernetesTarget:
    """Returns a target with further settings; the secret goes through the environment."""
    if token is not None:
        os.environ["EXAMPLE_TOKEN"] = token
    ca = f", ca_file: {ca_file}" if ca_file else ""
    return KubernetesTarget(parse_target(f"kind: kubernetes\nkubernetes: {{host: '{kfp.address}', {more}{ca}}}\n", "t"))


@pytest.fixture(autouse=True)
def _no_secret_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_TOKEN", "")


class TestAccess:
    def test_a_token_comes_from_the_environment_and_is_in_no_parameter(self, submission: Submission) -> None:
        with KfpFake(gate="secret-token") as kfp:
            target = secured(kfp, "auth: {method: token, variable: EXAMPLE_TOKEN}", "secret-token")
            run = target.submit(submission)
            assert {r.headers["authorization"] for r in kfp.requests} == {"Bearer secret-token"}
            assert not any(b"secret-token" in r.body for r in kfp.requests)
            assert "secret-token" not in repr(run)

    def test_a_projected_token_is_read_anew_when_it_changes(self, submission: Submission, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("first\n")
        with KfpFake(gate="first") as kfp:
            target = secured(kfp, f"auth: {{method: workload_identity, file: {file}}}")
            target.submit(submission)
            kfp.gate = "second"
            file.write_text("second")
            assert len(target.runs(5)) == 1

    def test_cookies_go_with_every_request(self, submission: Submission) -> None:
        with KfpFake(gate="session=abc") as kfp:
            target = secured(kfp, "auth: {method: cookies, variable: EXAMPLE_TOKEN}", "session=abc")
            target.submit(submission)
            assert {r.headers["cookie"] for r in kfp.requests} == {"session=abc"}

    def test_the_identity_aware_proxy_gets_an_id_token_for_its_client(
        self, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from google.oauth2 import id_token

        asked = []

        class Credentials:
            valid, token = False, None

            def refresh(self, request: object) -> None:
                self.valid, self.token = True, "an-id-token"

        def fetch(audience: str, request: object) -> Credentials:
            asked.append(audience)
            return Credentials()

        monkeypatch.setattr(id_token, "fetch_id_token_credentials", fetch)
        with KfpFake(gate="an-id-token") as kfp:
            target = secured(kfp, "auth: {method: iap, client_id: 1-x.apps.example.com}")
            target.submit(submission)
            assert asked == ["1-x.apps.example.com"]

    def test_iap_without_credentials_says_which_it_needs(
        self, monkeypatch: pytest.MonkeyPatch, kfp: KfpFake, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        with pytest.raises(UsageError, match="needs credentials that can make an ID token"):
            secured(kfp, "auth: {method: iap, client_id: 1-x.apps.example.com}").runs(1)

    @pytest.mark.parametrize("login", [False, True])
    def test_a_proxy_that_does_not_know_us_is_told(self, login: bool) -> None:
        with KfpFake(gate="right", login=login) as kfp:
            expected = r"302.*\n.*login" if login else r"who asks is not known .*401.*Invalid IAP"
            with pytest.raises((PlatformError, UsageError), match=expected) as told:
                secured(kfp, "auth: {method: token, variable: EXAMPLE_TOKEN}", "wrong").runs(1)
            assert "`kubernetes.auth`" in str(told.value)

    def test_whom_kfp_does_not_know_or_permit_is_told(self, submission: Submission) -> None:
        with KfpFake(multi_user=True, access={"mine": ["elsewhere"]}) as kfp:
            for token, message in (("mine", "is not permitted"), ("x", "there is no user identity header")):
                more = "multi_user: true, auth: {method: token, variable: EXAMPLE_TOKEN}"
                with pytest.raises(PlatformError, match=message):
                    secured(kfp, more, token).submit(submission)

    @pytest.mark.parametrize(
        ("auth", "message"),
        [
            ("{method: token, variable: EXAMPLE_TOKEN}", "the environment must have EXAMPLE_TOKEN"),
            ("{method: token, file: nowhere}", "nowhere: must be a file that holds the token"),
            ("{method: workload_identity}", r"/var/run/secrets/kubeflow/pipelines/token: must be a file"),
        ],
    )
    def test_a_secret_that_is_not_there_is_told_by_its_place(self, kfp: KfpFake, auth: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            secured(kfp, f"auth: {auth}").runs(1)

    def test_an_empty_file_holds_no_token(self, kfp: KfpFake, tmp_path: Path) -> None:
        (tmp_path / "token").touch()
        with pytest.raises(UsageError, match="an empty file"):
            secured(kfp, f"auth: {{method: token, file: {tmp_path / 'token'}}}").runs(1)

    def test_its_certificate_must_be_trusted(self, submission: Submission, tmp_path: Path) -> None:
        authority, other = trustme.CA(), trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        for name, one in (("right", authority), ("wrong", other)):
            one.cert_pem.write_to_path(tmp_path / name)
        with KfpFake(tls=context) as kfp:
            secured(kfp, "experiment: tidemill", ca_file=tmp_path / "right").submit(submission)
            with pytest.raises(PlatformError, match=r"its certificate must be trusted(.|\n)*`kubernetes\.ca_file`"):
                secured(kfp, "experiment: tidemill", ca_file=tmp_path / "wrong").runs(1)
            with pytest.raises(UsageError, match="must be a file of certificates"):
                secured(kfp, "experiment: tidemill", ca_file=tmp_path / "nowhere").runs(1)


class TestServersThatFail:
    @pytest.fixture(autouse=True)
    def _quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "_PAUSES_S", (0.0, 0.0, 0.0, 0.0))

    def test_one_that_is_unavailable_too_long_is_told(self, kfp: KfpFake, target: KubernetesTarget) -> None:
        kfp.fail("GET", ".*", 503, times=5)
        with pytest.raises(PlatformError, match=r"the server failed .*503"):
            target.runs(1)
        assert len(kfp.requests) == 5

    def test_a_quota_is_told(self, kfp: KfpFake, target: KubernetesTarget) -> None:
        kfp.fail("GET", ".*", 429, times=5)
        with pytest.raises(PlatformError, match="asks too much"):
            target.runs(1)

    def test_one_that_breaks_is_not_asked_again(self, kfp: KfpFake, target: KubernetesTarget) -> None:
        kfp.fail("GET", ".*", 500)
        with pytest.raises(PlatformError, match=r"the server failed .*500"):
            target.runs(1)
        assert len(kfp.requests) == 1

    def test_one_that_is_not_there_is_told(self) -> None:
        with KfpFake() as gone:
            pass
        with pytest.raises(PlatformError, match=r"nothing listens there(.|\n)*`kubernetes\.host`"):
            secured(gone, "experiment: x").runs(1)

    def test_a_name_that_does_not_resolve_is_told(self) -> None:
        target = KubernetesTarget(parse_target("kind: kubernetes\nkubernetes: {host: http://kfp.invalid}\n", "t"))
        with pytest.raises(PlatformError, match="its name must resolve"):
            target.runs(1)

    def test_a_target_without_an_address_is_refused(self) -> None:
        with pytest.raises(UsageError, match="must be the address of the KFP API server"):
            KubernetesTarget(parse_target("kind: kubernetes\n", "t")).runs(1)
