"""Batch predictions on Vertex AI: one job per run, waited for by whoever asks again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidemill.errors import PlatformError, UsageError
from tidemill.vertex.run import batch_predict

SOURCE = "gs://example-bucket/rows.jsonl"


def predict(world: Any, run_id: str = "run-9", **changes: Any) -> Any:
    arguments = {"model": "toy", "version": "champion", "source": SOURCE, "destination": "gs://example-bucket/out"}
    given = {**arguments, **changes}
    return batch_predict(
        world.registry,
        **given,
        settings=world.settings,
        prediction=world.root / "prediction",
        run_id=run_id,
        clients=world.clients,
    )


@pytest.fixture
def rows(world: Any, fake: Any) -> Any:
    world.release("1")
    fake.put(SOURCE, b'{"age": 1}\n{"age": 2}\n\n{"age": 3}\n')
    return world


def test_the_champion_predicts_every_row(rows: Any, fake: Any) -> None:
    rows.settings |= {
        "accelerator": "NVIDIA_TESLA_T4",
        "max_replicas": 4,
        "service_account": "batch@example-project.iam.gserviceaccount.com",
        "cmek_key": "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k",
    }
    report = predict(rows)
    assert (report.rows, report.failed_rows) == (3, 0)
    results = fake.objects()[f"{report.directory}/prediction.results-00000-of-00001"]
    assert [json.loads(line)["instance"] for line in results.splitlines()] == [{"age": 1}, {"age": 2}, {"age": 3}]
    told = json.loads((rows.root / "prediction" / "prediction.json").read_text())
    assert told == {**vars(report), "version": "1"}
    (request,) = fake.requests("CreateBatchPredictionJob")
    assert request["batch_prediction_job"] == {
        "display_name": "toy-run-9",
        "model": f"{rows.registry}/models/toy@1",
        "labels": {"team": "risk", "tidemill-model": "toy", "tidemill-run": "run-9"},
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [SOURCE]}},
        "output_config": {
            "predictions_format": "jsonl",
            "gcs_destination": {"output_uri_prefix": "gs://example-bucket/out"},
        },
        "dedicated_resources": {
            "machine_spec": {
                "machine_type": "n1-standard-2",
                "accelerator_type": "NVIDIA_TESLA_T4",
                "accelerator_count": 1,
            },
            "starting_replica_count": 1,
            "max_replica_count": 4,
        },
        "service_account": "batch@example-project.iam.gserviceaccount.com",
        "encryption_spec": {"kms_key_name": rows.settings["cmek_key"]},
    }


def test_a_repeated_step_finds_its_job_and_another_run_makes_its_own(rows: Any, fake: Any) -> None:
    fake.refuse("CreateBatchPredictionJob", "UNAVAILABLE", "the connection broke", done=True)
    first = predict(rows)
    assert predict(rows) == first
    assert predict(rows, run_id="run-10").job != first.job
    assert len(fake.requests("CreateBatchPredictionJob")) == 2


def test_a_failed_job_is_told_and_begun_anew(rows: Any, fake: Any) -> None:
    with pytest.raises(PlatformError, match=r"JOB_STATE_FAILED: The input file .*missing\.jsonl does not exist"):
        predict(rows, source="gs://example-bucket/missing.jsonl")
    fake.put("gs://example-bucket/missing.jsonl", b"{}\n")
    assert predict(rows, source="gs://example-bucket/missing.jsonl").rows == 1


def test_versions_and_addresses_that_do_not_fit_are_told(rows: Any) -> None:
    with pytest.raises(UsageError, match="model toy: has no version challenger"):
        predict(rows, version="challenger")
    with pytest.raises(UsageError, match="source must begin with gs://"):
        predict(rows, source="rows.jsonl")
    with pytest.raises(UsageError, match="destination must begin with gs://"):
        predict(rows, destination="/tmp")


def test_a_job_that_takes_too_long_goes_on(rows: Any, fake: Any, clients: Any) -> None:
    from dataclasses import replace

    from tidemill.vertex.clients import Clients

    patient = rows.clients
    rows.clients = Clients(clients.location, replace(clients.patience, operation=-1), clients.api_endpoint)
    with pytest.raises(PlatformError, match=r"must end in time .*JOB_STATE_PENDING"):
        predict(rows)
    rows.clients = patient
    assert predict(rows).rows == 3
    assert len(fake.requests("CreateBatchPredictionJob")) == 1
