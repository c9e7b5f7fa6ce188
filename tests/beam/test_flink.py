"""The Beam stages give on Flink what they give in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from tidemill.beam import opened_cluster
from tidemill.bundle import open_bundle, pack
from tidemill.errors import DataError
from tidemill.evaluate.run import run as evaluate
from tidemill.files import digest_tree
from tidemill.ingest.run import run as ingest
from tidemill.problem import dump_problem, parse_problem
from tidemill.transform.graph import TRANSFORM_FN
from tidemill.transform.run import run as transform

FLINK = ["--parallelism=2"]


@pytest.fixture(scope="session")
def on_flink(flink_jar: Path, shop) -> Iterator[list[str]]:
    """Flags of a job server with an embedded cluster that all tests share; the tests' own process is the worker."""
    flags = [*FLINK, f"--flink_job_server_jar={flink_jar}"]
    with opened_cluster(open_bundle(shop.bundle), "flink", flags) as cluster:
        yield list(cluster.flags)


def test_ingest_writes_the_same_examples(shop, examples, on_flink, tmp_path):
    ingest(shop.bundle, str(shop.table), "", tmp_path / "examples", "flink", on_flink)
    assert digest_tree(tmp_path / "examples") == digest_tree(examples)


def test_rows_of_a_group_are_brought_together_wherever_they_are(shop, on_flink, tmp_path, monkeypatch):
    monkeypatch.setattr("tidemill.ingest.windows.PARTITION_BYTES", 20_000)
    text = dump_problem(open_bundle(shop.bundle).problem) + "time: visits\nwindows: {length: 3, incomplete: keep}\n"
    bundle = pack(parse_problem(text, "problem.yaml"), tmp_path, tmp_path / "bundles")
    for runner, flags in (("direct", []), ("flink", on_flink)):
        ingest(bundle, str(shop.table), "", tmp_path / runner, runner, flags)
    assert len(list((tmp_path / "direct" / "train").iterdir())) > 3
    assert list((tmp_path / "direct" / "quarantine").iterdir())
    assert digest_tree(tmp_path / "flink") == digest_tree(tmp_path / "direct")


def test_transform_writes_the_same_graph_and_the_same_features(shop, examples, on_flink, tmp_path):
    found = {}
    for runner, flags in (("direct", []), ("flink", on_flink)):
        graph, transformed = tmp_path / runner / "graph", tmp_path / runner / "transformed"
        report = transform(shop.bundle, examples, tmp_path, graph, transformed, runner, flags)
        found[runner] = (report.rows, report.features, report.vocabularies, digest_tree(transformed))
        assets = {p.name: p.read_bytes() for p in (graph / TRANSFORM_FN / "assets").iterdir()}
        found[runner] += (assets,)
    assert found["flink"] == found["direct"]


def test_evaluate_comes_to_the_same_metrics_and_the_same_decision(shop, examples, on_flink, tmp_path):
    (tmp_path / "none").mkdir()
    found = {}
    for runner, flags in (("direct", []), ("flink", on_flink)):
        out = tmp_path / runner
        evaluate(
            shop.bundle, examples, shop.model, tmp_path / "none", out / "evaluation", out / "blessing",
            out / "predictions", runner, flags,
        )  # fmt: skip
        metrics = pq.read_table(out / "evaluation" / "metrics.parquet")
        decision = json.loads((out / "blessing" / "blessing.json").read_text())
        found[runner] = metrics, decision, digest_tree(out / "predictions")
    assert found["flink"][2] == found["direct"][2]
    _assert_equal(found["flink"][0], found["direct"][0])
    assert found["flink"][1] == found["direct"][1]


def _assert_equal(first: pa.Table, second: pa.Table) -> None:
    assert first.schema == second.schema
    for name in first.column_names:
        if pa.types.is_floating(first.schema.field(name).type):
            np.testing.assert_array_equal(first[name].to_numpy(), second[name].to_numpy(), err_msg=name)
        else:
            assert first[name].equals(second[name]), name


def test_the_jobs_ran_on_flink_and_not_here(shop, examples, on_flink, tmp_path):
    """What says so is Flink's own job server."""
    endpoint = next(flag.partition("=")[2] for flag in on_flink if flag.startswith("--job_endpoint"))
    with grpc.insecure_channel(endpoint) as channel:
        jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
        before = len(jobs.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info)
        ingest(shop.bundle, str(shop.table), "", tmp_path / "examples", "flink", on_flink)
        after = jobs.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info
    assert len(after) - before == 2  # a pass for the types and one for the rows
    assert {job.state for job in after} == {beam_job_api_pb2.JobState.DONE}


def test_a_fault_of_the_data_keeps_its_kind_and_words(shop, examples, on_flink, tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "a.csv").write_text("x,x\n1,2\n")
    with pytest.raises(DataError) as here:
        ingest(shop.bundle, str(tmp_path / "table"), "", tmp_path / "direct")
    with pytest.raises(DataError) as there:
        ingest(shop.bundle, str(tmp_path / "table"), "", tmp_path / "flink", "flink", on_flink)
    assert str(there.value) == str(here.value)
    assert not (tmp_path / "flink").exists()
