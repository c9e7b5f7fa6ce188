"""What Dataflow would be sent for a stage, as the SDK writes it: nothing is sent, and no more than that is proved."""

from __future__ import annotations

import base64
import bz2

import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.internal import apiclient
from google.cloud import dataflow_v1beta3 as dataflow

from tidemill.artifacts import ExamplesManifest
from tidemill.beam import Cluster
from tidemill.beam_files import SamePaths
from tidemill.bundle import open_bundle
from tidemill.dataflow import DataflowSettings, dataflow_flags
from tidemill.transform.analysis import analyse
from tidemill.transform.features import RAW_TYPES
from tidemill.transform.preprocessing import UserPreprocessing

IMAGE = "registry.example.com/tidemill/tensorflow@sha256:" + "0" * 64
SETTINGS = DataflowSettings(
    project="example-project",
    region="europe-west1",
    temp_location="gs://example-bucket/temp",
    image=IMAGE,
    service_account="beam@example-project.iam.gserviceaccount.com",
    machine_type="n2-standard-8",
    workers=2,
    max_workers=20,
    subnetwork="regions/europe-west1/subnetworks/workers",
)


@pytest.fixture(scope="module")
def job(shop, examples, tmp_path_factory) -> apiclient.Job:
    """The job of an analysis with user code, which the SDK makes and, in a dry run, doesn't send."""
    jobs = []

    class Recorded(apiclient.Job):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            jobs.append(self)

    bundle, directory = open_bundle(shop.user_bundle), tmp_path_factory.mktemp("dry")
    reference = bundle.problem.user_code.preprocessing
    columns = ExamplesManifest.read(examples).columns
    raw = {name: RAW_TYPES[columns[name]] for name in bundle.problem.raw_columns}
    preprocessing = UserPreprocessing(bundle.user_function(reference), reference, bundle.directory)
    flags = (*dataflow_flags(SETTINGS), "--dry_run=True")
    cluster = Cluster("dataflow", flags, SamePaths(), bundle.archive.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apiclient, "Job", Recorded)
        analyse(examples, raw, preprocessing, directory, directory, cluster)
    (job,) = jobs
    return job


def test_the_workers_are_those_that_were_settled(job):
    environment = apiclient.Environment(
        [], job.options, "8", "gs://example-bucket/temp/pipeline.pb", job.proto_pipeline
    )
    (pool,) = environment.proto.worker_pools
    assert pool.worker_harness_container_image == IMAGE
    assert pool.machine_type == "n2-standard-8"
    assert pool.ip_configuration == dataflow.WorkerIPAddressConfiguration.WORKER_IP_PRIVATE
    assert (pool.num_workers, pool.autoscaling_settings.max_num_workers) == (2, 20)
    assert pool.autoscaling_settings.algorithm == dataflow.AutoscalingAlgorithm.AUTOSCALING_ALGORITHM_BASIC
    assert pool.subnetwork == SETTINGS.subnetwork
    assert environment.proto.service_account_email == SETTINGS.service_account


def test_every_function_that_the_workers_unpickle_has_the_modules_with_it(job):
    transforms = job.proto_pipeline.components.transforms.values()
    payloads = [t.spec.payload for t in transforms if t.spec.urn == common_urns.primitives.PAR_DO.urn]
    functions = [beam_runner_api_pb2.ParDoPayload.FromString(payload).do_fn.payload for payload in payloads]
    pickled = [function for function in functions if function]  # the SDK's own ones are known by name
    assert len(pickled) > 10
    for function in pickled:
        assert b"_unpickled" in bz2.decompress(base64.b64decode(function))


def test_the_job_is_small_enough_for_the_service(job):
    """It takes 10 MB; the archive of the user's modules is in every function."""
    assert job.proto_pipeline.ByteSize() < 1_000_000
