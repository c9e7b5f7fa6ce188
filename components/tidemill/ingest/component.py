"""The ingest components: where the table of this run is, and its rows as examples."""

from kfp import dsl

from tidemill.images import CONTROL, TENSORFLOW


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def locate(
    source: str,
    scheduled: str,
    created: str,
    located: dsl.OutputPath(str),
    fingerprint: dsl.OutputPath(str),
):
    """Fills in what depends on the time of the run, and fingerprints the table. Never cached: files change.

    Args:
        source: file, directory, glob or URI; may hold templates such as `{{ schedule.time | date('%Y-%m-%d') }}`.
        scheduled: when the run was due, as the backend says it; `now` where the clock is to decide.
        created: when the run was created, likewise.
        located: the source without templates.
        fingerprint: digest of the source's content.
    """
    from tidemill.stage import Stage

    with Stage("locate") as stage:
        from tidemill.ingest.location import run

        stage.begin()
        stage.report(run(source, scheduled, created, located, fingerprint))


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def ingest(
    bundle: dsl.Input[dsl.Artifact],
    source: str,
    source_fingerprint: str,
    examples: dsl.Output[dsl.Dataset],
    beam_runner: str = "direct",
    beam_flags: list = [],  # noqa: B006 - KFP takes a default as a constant
):
    """Reads a table, infers its types over all rows, and divides it into train, eval and test.

    Args:
        bundle: the problem.
        source: file, directory, glob or URI: CSV (also .gz), JSON Lines, Parquet, TFRecord of tf.Example, bq://.
        source_fingerprint: digest of the source's content when the run began; it makes a changed file
            behind the same path a different input, so that no stale result is reused.
        examples: Parquet per split, quarantine and manifest.
        beam_runner: direct, flink, dataflow or spark.
        beam_flags: Beam's own flags, such as --parallelism=8.
    """
    from tidemill.stage import Stage

    with Stage("ingest") as stage:
        from tidemill.ingest.run import run

        stage.begin()
        stage.report(run(bundle.path, source, source_fingerprint, examples.path, beam_runner, beam_flags))
