"""What Dataflow is told is what was settled, in words that Beam's own parser and job description take."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("apache_beam", reason="the environment has no Beam")

from apache_beam.options.pipeline_options import GoogleCloudOptions, SetupOptions, WorkerOptions

from tidemill.beam import pipeline_options
from tidemill.dataflow import DataflowSettings, dataflow_flags
from tidemill.errors import UsageError

DIGEST = "registry.example.com/tidemill/tensorflow@sha256:" + "0" * 64
SETTINGS = DataflowSettings(
    project="example-project",
    region="europe-west1",
    temp_location="gs://example-bucket/temp",
    image=DIGEST,
    service_account="beam@example-project.iam.gserviceaccount.com",
    machine_type="n2-standard-8",
    workers=2,
    max_workers=20,
    subnetwork="regions/europe-west1/subnetworks/workers",
    cmek_key="projects/example-project/locations/europe-west1/keyRings/r/cryptoKeys/k",
    labels={"team": "risk", "cost-centre": "42"},
)


def test_every_setting_arrives_where_the_sdk_reads_it():
    options = pipeline_options("dataflow", dataflow_flags(SETTINGS))
    cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    assert (cloud.project, cloud.region) == ("example-project", "europe-west1")
    assert cloud.temp_location == "gs://example-bucket/temp"
    assert cloud.service_account_email == SETTINGS.service_account
    assert cloud.dataflow_kms_key == SETTINGS.cmek_key
    assert cloud.labels == ["cost-centre=42", "team=risk"]
    assert (workers.sdk_container_image, workers.machine_type) == (DIGEST, "n2-standard-8")
    assert (workers.num_workers, workers.max_num_workers) == (2, 20)
    assert workers.autoscaling_algorithm == "THROUGHPUT_BASED"
    assert workers.subnetwork == SETTINGS.subnetwork
    assert workers.use_public_ips is False
    assert options.view_as(SetupOptions).sdk_location == "container"


def test_without_autoscaling_the_number_of_workers_stays():
    flags = dataflow_flags(dataclasses.replace(SETTINGS, autoscaling=False, public_ips=True))
    workers = pipeline_options("dataflow", flags).view_as(WorkerOptions)
    assert workers.autoscaling_algorithm == "NONE"
    assert workers.max_num_workers == 2
    assert workers.use_public_ips is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "registry.example.com/tidemill/tensorflow:0.1.0"}, "named by digest"),
        ({"labels": {"Team": "risk"}}, r"lower case .* \(got Team=risk\)"),
    ],
)
def test_settings_that_dataflow_would_refuse_or_reinterpret_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        dataflow_flags(dataclasses.replace(SETTINGS, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"project": "12345"}, r"Invalid Project ID \(12345\)"),
        ({"temp_location": "example-bucket/temp"}, "Invalid GCS path"),
        ({"workers": 30}, r"num_workers \(30\) cannot exceed max_num_workers \(20\)"),
        ({"max_workers": 0}, r"Invalid value \(0\) for option: max_num_workers"),
    ],
)
def test_the_sdk_itself_refuses_settings_that_contradict_each_other(change, message):
    flags = dataflow_flags(dataclasses.replace(SETTINGS, **change))
    with pytest.raises(UsageError, match=message):
        pipeline_options("dataflow", flags)
