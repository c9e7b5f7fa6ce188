"""What the KFP fake refuses, asked by the unmodified client; each refusal is one of the real server's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest
import yaml
from kfp_fake import KfpFake
from kfp_server_api.exceptions import ApiException

from tidemill_pipelines.targets.compilation import Package


class Caller:
    """The generated client, and what most calls need: an experiment and a version."""

    def __init__(self, kfp: KfpFake, package: Package, directory: Path, token: str | None = None) -> None:
        self.kfp, self.text, self.directory = kfp, package.text, directory
        configuration = api.Configuration(host=kfp.address)
        if token is not None:
            configuration.api_key = {"authorization": token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        client = api.ApiClient(configuration)
        self.experiments = api.ExperimentServiceApi(client)
        self.pipelines = api.PipelineServiceApi(client)
        self.uploads = api.PipelineUploadServiceApi(client)
        self.runs = api.RunServiceApi(client)
        self.recurring = api.RecurringRunServiceApi(client)
        namespace = "tidemill" if kfp.multi_user else None
        self.experiment = self.experiments.experiment_service_create_experiment(
            api.V2beta1Experiment(display_name="e", namespace=namespace)
        ).experiment_id
        self.pipeline = self.pipelines.pipeline_service_create_pipeline(
            api.V2beta1Pipeline(name="p", namespace=namespace)
        ).pipeline_id
        self.version = self.upload(package.text, name="v").pipeline_version_id

    def upload(self, text: str, file: str = "p.yaml", pipeline: str | None = None, **named: Any) -> Any:
        path = self.directory / file
        path.write_text(text)
        return self.uploads.upload_pipeline_version(str(path), pipelineid=pipeline or self.pipeline, **named)

    def run(self, parameters: Any = None, **changes: Any) -> Any:
        return self.runs.run_service_create_run(api.V2beta1Run(**self._asked(parameters, changes)))

    def schedule(self, cron: str = "0 0 3 * * *", parameters: Any = None, **changes: Any) -> Any:
        trigger = api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron))
        asked = {"max_concurrency": "1", "trigger": trigger, "mode": "ENABLE", **self._asked(parameters, changes)}
        return self.recurring.recurring_run_service_create_recurring_run(api.V2beta1RecurringRun(**asked))

    def _asked(self, parameters: Any, changes: dict[str, Any]) -> dict[str, Any]:
        reference = api.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline, pipeline_version_id=changes.pop("version", self.version)
        )
        given = {"source": "s"} if parameters is None else parameters
        return {
            "display_name": "r",
            "experiment_id": self.experiment,
            "pipeline_version_reference": reference,
            "runtime_config": api.V2beta1RuntimeConfig(parameters=given),
            **changes,
        }


@pytest.fixture
def caller(kfp: KfpFake, package: Package, tmp_path: Path) -> Caller:
    return Caller(kfp, package, tmp_path)


def predicate(key: str = "display_name", operation: str = "EQUALS", **value: Any) -> str:
    return json.dumps({"predicates": [{"key": key, "operation": operation, **(value or {"string_value": "x"})}]})


def with_spec(text: str, change: Callable[[dict[str, Any]], Any]) -> str:
    documents = list(yaml.safe_load_all(text))
    change(documents[0])
    return yaml.safe_dump_all(documents)


REFUSALS: dict[str, tuple[int, str, Callable[[Caller], Any]]] = {
    "an experiment without a name": (
        400,
        "name cannot be empty",
        lambda c: c.experiments.experiment_service_create_experiment(api.V2beta1Experiment(display_name="")),
    ),
    "an experiment of a name that is taken": (
        409,
        "The name e already exists",
        lambda c: c.experiments.experiment_service_create_experiment(api.V2beta1Experiment(display_name="e")),
    ),
    "an experiment of too long a name": (
        400,
        "Experiment.Name length cannot exceed 128",
        lambda c: c.experiments.experiment_service_create_experiment(api.V2beta1Experiment(display_name="e" * 129)),
    ),
    "a pipeline without a name": (
        400,
        "name cannot be empty",
        lambda c: c.pipelines.pipeline_service_create_pipeline(api.V2beta1Pipeline()),
    ),
    "a pipeline of a name that is taken": (
        409,
        "The name p already exists",
        lambda c: c.pipelines.pipeline_service_create_pipeline(api.V2beta1Pipeline(name="p")),
    ),
    "a pipeline of too long a name": (
        400,
        "Pipeline.Name length cannot exceed 128",
        lambda c: c.pipelines.pipeline_service_create_pipeline(api.V2beta1Pipeline(name="p" * 129)),
    ),
    "a pipeline that is not there, by name": (
        404,
        "Namespace/Pipeline /x not found",
        lambda c: c.pipelines.pipeline_service_get_pipeline_by_name("x"),
    ),
    "a pipeline that is not there": (
        404,
        "Pipeline x not found",
        lambda c: c.pipelines.pipeline_service_get_pipeline("x"),
    ),
    "versions of a pipeline that is not there": (
        404,
        "Pipeline x not found",
        lambda c: c.pipelines.pipeline_service_list_pipeline_versions("x"),
    ),
    "a version that is not there": (
        404,
        "PipelineVersion x not found",
        lambda c: c.pipelines.pipeline_service_get_pipeline_version(c.pipeline, "x"),
    ),
    "a version of a name that is taken": (
        409,
        "Failed to create a pipeline version",
        lambda c: c.upload(c.text, name="v"),
    ),
    "a version of too long a name": (
        400,
        "PipelineVersion.Name length cannot exceed 127",
        lambda c: c.upload(c.text, name="v" * 128),
    ),
    "a version of no pipeline": (
        400,
        "Failed to create a pipeline version",
        lambda c: c.upload(c.text, pipeline="x", name="w"),
    ),
    "a file of another kind": (
        400,
        "Failed to create a pipeline version",
        lambda c: c.upload(c.text, file="p.txt", name="w"),
    ),
    "a file that is no YAML": (400, "unable to decode yaml document", lambda c: c.upload("{", name="w")),
    "a file without a pipeline": (400, "no pipeline spec is provided", lambda c: c.upload("a: 1", name="w")),
    "a file with two pipelines": (
        400,
        "multiple pipeline specs provided",
        lambda c: c.upload(f"{c.text}\n---\n{c.text}", name="w"),
    ),
    "a pipeline with two platform specs": (
        400,
        "multiple platform specs provided",
        lambda c: c.upload(c.text + "\n---\n" + c.text.rpartition("---\n")[2], name="w"),
    ),
    "a pipeline of another schema": (
        400,
        "KFP only supports schema version 2.1.0, but the pipeline spec has version 2.0.0",
        lambda c: c.upload(with_spec(c.text, lambda s: s.update(schemaVersion="2.0.0")), name="w"),
    ),
    "a pipeline with a field that there isn't": (
        400,
        "invalid v2 pipeline spec",
        lambda c: c.upload(with_spec(c.text, lambda s: s.update(rooot={})), name="w"),
    ),
    "a pipeline of a name that is none": (
        400,
        "must contain only lowercase alphanumeric characters",
        lambda c: c.upload(with_spec(c.text, lambda s: s["pipelineInfo"].update(name="A b")), name="w"),
    ),
    "a run in no experiment": (404, "Experiment x not found", lambda c: c.run(experiment_id="x")),
    "a run of no version": (500, "PipelineVersion x not found", lambda c: c.run(version="x")),
    "a run without a parameter that it needs": (400, "parameter source is not optional", lambda c: c.run({})),
    "a run with a parameter that there isn't": (
        400,
        "not required by pipeline: nonsense",
        lambda c: c.run({"source": "s", "nonsense": 1}),
    ),
    "a number that is text": (400, "parameter rows requires type", lambda c: c.run({"source": "s", "rows": "1"})),
    "a number that is a truth": (400, "parameter rows requires type", lambda c: c.run({"source": "s", "rows": True})),
    "a truth that is a number": (400, "parameter deep requires type", lambda c: c.run({"source": "s", "deep": 1})),
    "text that is a number": (400, "parameter source requires type string", lambda c: c.run({"source": 1})),
    "parameters beyond what etcd holds": (
        500,
        "etcdserver: request is too large",
        lambda c: c.run({"source": "s" * (3 << 19)}),
    ),
    "a run that is not there": (404, "Run x not found", lambda c: c.runs.run_service_get_run("x")),
    "the end of a run that is not there": (404, "Run x not found", lambda c: c.runs.run_service_terminate_run("x")),
    "the end of a run that has ended": (
        400,
        "Row not found",
        lambda c: (c.kfp.end(r := c.run().run_id, "SUCCEEDED"), c.runs.run_service_terminate_run(r)),
    ),
    "runs of no experiment": (
        404,
        "Experiment x not found",
        lambda c: c.runs.run_service_list_runs(experiment_id="x"),
    ),
    "a schedule without a name": (500, "name cannot be empty", lambda c: c.schedule(display_name="")),
    "a schedule of no mode": (500, "mode is invalid", lambda c: c.schedule(mode=None)),
    "a schedule of eleven at a time": (
        400,
        "at least 1 and at most 10. Received 11",
        lambda c: c.schedule(max_concurrency="11"),
    ),
    "a schedule of none at a time": (400, "at most 10. Received 0", lambda c: c.schedule(max_concurrency="0")),
    "a cron of four fields": (400, "Expected 5 to 6 fields, found 4", lambda c: c.schedule("0 3 * *")),
    "a cron of seven fields": (400, "Expected 5 to 6 fields, found 7", lambda c: c.schedule("0 0 3 * * * *")),
    "a cron out of range": (400, "End of range (99) above maximum (59)", lambda c: c.schedule("99 0 3 * * *")),
    "a cron below range": (400, "Beginning of range (0) below minimum (1)", lambda c: c.schedule("0 0 3 0 * *")),
    "a cron backwards": (400, "beyond end of range", lambda c: c.schedule("0 5-1 3 * * *")),
    "a cron without steps": (400, "Step of range should be a positive number", lambda c: c.schedule("0 */0 3 * * *")),
    "a cron of words": (400, "Failed to parse int from x", lambda c: c.schedule("x 0 3 * * *")),
    "an empty cron": (400, "Empty spec string", lambda c: c.schedule("")),
    "a descriptor that there isn't": (400, "Unrecognized descriptor", lambda c: c.schedule("@often")),
    "an interval of nothing": (
        400,
        "Found invalid period schedule interval 0",
        lambda c: c.schedule(trigger=api.V2beta1Trigger(periodic_schedule=api.V2beta1PeriodicSchedule())),
    ),
    "a schedule in no experiment": (404, "Experiment x not found", lambda c: c.schedule(experiment_id="x")),
    "a schedule of no version": (500, "PipelineVersion x not found", lambda c: c.schedule(version="x")),
    "a schedule with a parameter that there isn't": (
        400,
        "not required by pipeline",
        lambda c: c.schedule(parameters={"source": "s", "x": 1}),
    ),
    "a schedule that is not there": (
        404,
        "Job x not found",
        lambda c: c.recurring.recurring_run_service_get_recurring_run("x"),
    ),
    "the pause of one that is not there": (
        404,
        "Job x not found",
        lambda c: c.recurring.recurring_run_service_disable_recurring_run("x"),
    ),
    "the resumption of one that is not there": (
        404,
        "Job x not found",
        lambda c: c.recurring.recurring_run_service_enable_recurring_run("x"),
    ),
    "the deletion of one that is not there": (
        404,
        "Job x not found",
        lambda c: c.recurring.recurring_run_service_delete_recurring_run("x"),
    ),
    "a page of less than nothing": (
        400,
        "page size should be greater than 0",
        lambda c: c.runs.run_service_list_runs(page_size=-1),
    ),
    "a page token that is none": (
        400,
        "Invalid page token",
        lambda c: c.runs.run_service_list_runs(page_token="nonsense"),
    ),
    "a page token of another question": (
        400,
        "page token does not match",
        lambda c: (
            c.run(),
            c.run(),
            c.runs.run_service_list_runs(
                page_token=c.runs.run_service_list_runs(page_size=1).next_page_token, sort_by="created_at desc"
            ),
        ),
    ),
    "an order of three words": (
        400,
        "invalid sort by format",
        lambda c: c.runs.run_service_list_runs(sort_by="created_at desc please"),
    ),
    "an order by what there isn't": (
        400,
        "Invalid sorting field",
        lambda c: c.runs.run_service_list_runs(sort_by="colour"),
    ),
    "a filter that is no JSON": (
        400,
        "failed to parse valid filter",
        lambda c: (c.run(), c.runs.run_service_list_runs(filter="{")),
    ),
    "a filter by what there isn't": (
        400,
        "no support for filtering on unrecognized field",
        lambda c: (c.run(), c.runs.run_service_list_runs(filter=predicate("colour"))),
    ),
    "a filter with a field that there isn't": (
        400,
        "unknown field",
        lambda c: (c.run(), c.runs.run_service_list_runs(filter=predicate(text="x"))),
    ),
    "a filter of no operation": (
        400,
        "invalid predicate operation",
        lambda c: (c.run(), c.runs.run_service_list_runs(filter=predicate(operation="LIKE"))),
    ),
    "a filter IN a scalar": (
        400,
        "cannot use IN operator with scalar",
        lambda c: (c.run(), c.runs.run_service_list_runs(filter=predicate(operation="IN"))),
    ),
    "a filter that EQUALS a list": (
        400,
        "cannot use scalar operator EQUALS on array",
        lambda c: (c.run(), c.runs.run_service_list_runs(filter=predicate(string_values={"values": ["x"]}))),
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_the_fake_refuses(caller: Caller, what: str) -> None:
    status, message, call = REFUSALS[what]
    with pytest.raises(ApiException) as refused:
        call(caller)
    assert refused.value.status == status
    assert message in refused.value.body


class TestBesides:
    def test_a_field_that_a_message_has_not(self, caller: Caller) -> None:
        import urllib3

        body = json.dumps({"display_name": "x", "runtime_config": {"parametres": {}}})
        answer = urllib3.request("POST", f"{caller.kfp.address}/apis/v2beta1/runs", body=body)
        assert answer.status == 400
        assert 'unknown field \\"parametres\\"' in answer.data.decode()
        for garbage in ("{", "[]"):
            assert urllib3.request("POST", f"{caller.kfp.address}/apis/v2beta1/runs", body=garbage).status == 400
        assert urllib3.request("GET", f"{caller.kfp.address}/apis/v2beta1/nonsense").status == 404

    def test_a_platform_spec_that_is_misspelt_vanishes_in_silence(self, caller: Caller) -> None:
        """As in the real server; `tidemill check` must find it."""
        text = caller.text.replace("deploymentSpec:\n      exec", "deploymentSpecs:\n      exec")
        assert text != caller.text
        assert "platform_spec" not in caller.upload(text, name="w").pipeline_spec

    def test_an_upload_that_is_no_form(self, caller: Caller) -> None:
        import urllib3

        url = f"{caller.kfp.address}/apis/v2beta1/pipelines/upload_version?pipelineid={caller.pipeline}"
        assert urllib3.request("POST", url, body="x").status == 400
        assert urllib3.request("POST", url, fields={"other": ("p.yaml", "x")}).status == 400

    def test_several_users(self, package: Package, tmp_path: Path) -> None:
        with KfpFake(multi_user=True, access={"mine": ["tidemill"], "theirs": ["elsewhere"]}) as kfp:
            mine = Caller(kfp, package, tmp_path, "mine")
            run = mine.run().run_id
            with pytest.raises(ApiException, match="cannot have an empty namespace in multi-user mode"):
                mine.experiments.experiment_service_list_experiments()
            with pytest.raises(ApiException, match="cannot have an empty namespace in multi-user mode"):
                mine.experiments.experiment_service_create_experiment(api.V2beta1Experiment(display_name="x"))
            with pytest.raises(ApiException, match="cannot have an empty namespace in multi-user mode"):
                mine.runs.run_service_list_runs()
            with pytest.raises(ApiException, match="Experiment id can not be empty in multi-user mode"):
                mine.run(experiment_id=None)
            for token, status in (("theirs", 403), ("nobody", 401)):
                mine.runs.api_client.configuration.api_key["authorization"] = token
                for call in (
                    lambda: mine.runs.run_service_get_run(run),
                    lambda: mine.runs.run_service_terminate_run(run),
                    lambda: mine.runs.run_service_list_runs(experiment_id=mine.experiment),
                    lambda: mine.run(),
                    lambda: mine.schedule(),
                    lambda: mine.pipelines.pipeline_service_list_pipelines(namespace="tidemill"),
                    lambda: mine.pipelines.pipeline_service_get_pipeline_by_name("p", namespace="tidemill"),
                ):
                    with pytest.raises(ApiException) as refused:
                        call()
                    assert refused.value.status == status
                with pytest.raises(ApiException) as refused:
                    mine.upload(package.text, name="w")
                assert refused.value.status == 400, "uploads don't say why"

    def test_what_it_takes_comes_back(self, caller: Caller) -> None:
        health = api.HealthzServiceApi(caller.runs.api_client).healthz_service_get_healthz()
        assert health.multi_user is False
        made = [caller.run(display_name=f"r{i}").run_id for i in range(3)]
        first = caller.runs.run_service_list_runs(page_size=2, sort_by="created_at desc")
        rest = caller.runs.run_service_list_runs(page_token=first.next_page_token)
        assert [r.run_id for r in (*first.runs, *rest.runs)] == made[::-1]
        assert (first.total_size, rest.next_page_token) == (3, None)
        for text, names in (
            (predicate(string_value="r1"), ["r1"]),
            (predicate(operation="NOT_EQUALS", string_value="r1"), ["r0", "r2"]),
            (predicate(operation="IS_SUBSTRING", string_value="R_"), ["r0", "r1", "r2"]),
            (predicate(operation="IN", string_values={"values": ["r0", "r2"]}), ["r0", "r2"]),
        ):
            found = caller.runs.run_service_list_runs(filter=text, sort_by="display_name").runs
            assert [run.display_name for run in found] == names
        assert caller.pipelines.pipeline_service_list_pipelines().pipelines[0].name == "p"
