"""Where the Beam pipelines of a stage run: in its own process, on Flink, Dataflow or Spark.

A stage opens one :class:`Cluster` and starts all its pipelines on it. Beyond one machine three things change, and all
three are dealt with here: a job server may have to run beside the stage, workers may not see the stage's disk, and
they don't know the user's modules.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tidemill.beam_code import user_code_on_workers
from tidemill.beam_files import Exchange, SamePaths, exchange_at
from tidemill.bundle import Bundle
from tidemill.errors import PlatformError, UsageError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

# The DirectRunner of Beam 2.7x first asks the network for Prism; FnApiRunner is what it falls back to.
_RUNNERS: Final = {
    "direct": "FnApiRunner",
    "flink": "FlinkRunner",
    "dataflow": "DataflowRunner",
    "spark": "SparkRunner",
}
_EMBEDDED_FLINK: Final = ("--flink_master=[local]", "--environment_type=LOOPBACK", "--job_server_jvm_properties=-Xmx1g")
"""A cluster inside the job server, this process its worker, and a bound on what Java takes."""


@dataclass(frozen=True)
class Cluster:
    """Where the pipelines of one stage run.

    Attributes:
        runner: direct, flink, dataflow or spark.
        flags: Beam's own flags, checked.
        exchange: where the stage and its workers leave files for each other.
    """

    runner: str
    flags: tuple[str, ...]
    exchange: Exchange
    _archive: bytes | None = None

    @property
    def spreads(self) -> bool:
        """Whether there are workers that work can be spread over."""
        return self.runner != "direct"

    @contextlib.contextmanager
    def pipeline(self, *flags: str) -> Iterator[beam.Pipeline]:
        """Yields a pipeline, which runs when the block ends."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        options = PipelineOptions([f"--runner={_RUNNERS[self.runner]}", *self.flags, *flags])
        with user_code_on_workers(self._archive), beam.Pipeline(options=options) as pipeline:
            yield pipeline


@contextlib.contextmanager
def opened_cluster(bundle: Bundle, runner: str, flags: Sequence[str]) -> Iterator[Cluster]:
    """Yields where a stage's pipelines run; what was started or stored for them is gone afterwards.

    Args:
        bundle: its user modules are taken to the workers.
        runner: direct, flink, dataflow or spark.
        flags: Beam's own, such as ``--region=europe-west1``. With ``--temp_location`` everything that workers read
            or write goes through there; without, they must see the stage's files at the same paths.

    Raises:
        UsageError: if a flag doesn't exist, doesn't fit or is missing.
        PlatformError: if there is no job server to be had.
    """
    if runner == "direct" and not flags:  # to go through all of Beam's options takes a twentieth of a second
        yield Cluster(runner, (), SamePaths())
        return
    options = pipeline_options(runner, flags)
    spreads = runner != "direct"
    location = options.get_all_options()["temp_location"] if spreads else None
    archive = bundle.archive.read_bytes() if spreads and bundle.problem.user_code.preprocessing else None
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(exchange_at(location))
        if runner in ("flink", "spark"):
            flags = [*flags, *stack.enter_context(_job_server(runner, flags))]
        yield Cluster(runner, tuple(flags), exchange, archive)


def pipeline_options(runner: str = "direct", flags: Sequence[str] = ()) -> PipelineOptions:
    """Returns the options for a Beam pipeline, checked by the SDK's own parser and validator.

    Args:
        runner: one of direct, flink, dataflow, spark.
        flags: further Beam flags, such as ``--region=europe-west1``. ``sys.argv`` is never read.

    Raises:
        UsageError: if a flag isn't one of the SDK's, has a value that it refuses, or is missing.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    if runner not in _RUNNERS:
        raise UsageError("beam_runner", f"expected one of {', '.join(_RUNNERS)}", runner)
    for flag in flags:
        if not flag.startswith("--") or flag.startswith("--runner"):
            raise UsageError(
                f"beam flag {flag}", "expected --name=value or --name, and no runner", remedy="beam_runner names that"
            )
    options = PipelineOptions([f"--runner={_RUNNERS[runner]}", *flags])
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):  # where argparse says what it refuses, before it wants to exit
            known = options.get_all_options()
    except SystemExit as error:
        said = refusal.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UsageError("beam flags", "must have values that Beam takes", said) from error
    if unknown := sorted(options.get_all_options(retain_unknown_options=True).keys() - known.keys()):
        raise UsageError(
            "beam flags",
            "must be options of Beam's Python SDK",
            ", ".join(f"--{name}" for name in unknown),
            _meant(unknown[0], known),
        )
    if faults := _faults(runner, flags):
        raise UsageError("beam flags", f"must be what {runner} needs", "; ".join(faults), "give them with beam_flags")
    return options


def _meant(unknown: str, known: dict[str, Any]) -> str | None:
    import difflib

    close = difflib.get_close_matches(unknown, known, 1)
    return f"did you mean --{close[0]}?" if close else None


def _faults(runner: str, flags: Sequence[str]) -> list[str]:
    """Returns what the SDK's validator finds, without asking any service."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.runner import create_runner

    if runner == "direct":
        return []
    # In a dry run the validator leaves the buckets' settings alone.
    dry = PipelineOptions([f"--runner={_RUNNERS[runner]}", *flags, "--dry_run=True"])
    validator = PipelineOptionsValidator(dry, create_runner(_RUNNERS[runner]))
    cloud = dry.view_as(GoogleCloudOptions)
    # Without a good location the validator would create a bucket in the project.
    if runner == "dataflow" and (faults := validator.validate_gcs_path(cloud, "temp_location")):
        return [*faults, *validator.validate_cloud_options(cloud)]
    return list(validator.validate())


@contextlib.contextmanager
def _job_server(runner: str, flags: Sequence[str]) -> Iterator[list[str]]:
    """Starts the job server that the flags ask for and yields the flags that lead to it.

    Beam would start one per pipeline, and end it in a handler that a stage's quick exit never comes to.
    """
    options = pipeline_options(runner, flags).get_all_options()
    if options["job_endpoint"] or options[f"{runner}_submit_uber_jar"]:
        yield []
        return
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.utils.subprocess_server import pick_port

    added: list[str] = []
    if runner == "flink" and options["flink_master"] in ("[auto]", "[local]"):
        names = {flag.partition("=")[0] for flag in flags}
        added = [flag for flag in _EMBEDDED_FLINK if flag.partition("=")[0] not in names]
    if runner == "flink" and not options["flink_job_server_jar"]:
        from tidemill.job_server import flink_job_server

        added.append(f"--flink_job_server_jar={flink_job_server()}")
    (port,) = pick_port(None)
    server = _server_class(runner)(PipelineOptions([*flags, *added, f"--job_port={port}"]))
    try:
        server.start()
    except (OSError, RuntimeError) as error:
        raise PlatformError(
            f"the job server of {runner}",
            "must start",
            str(error),
            "install Java 11 or 17, or name a running one with --job_endpoint=host:port",
        ) from error
    try:
        yield [*added, f"--job_endpoint=localhost:{port}"]
    finally:
        server.stop()


def _server_class(runner: str) -> Any:
    if runner == "flink":
        from apache_beam.runners.portability.flink_runner import FlinkJarJobServer

        return FlinkJarJobServer
    from apache_beam.runners.portability.spark_runner import SparkJarJobServer

    return SparkJarJobServer
