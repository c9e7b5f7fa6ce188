"""The ingest component: a table becomes examples."""

from kfp import dsl

from tidemill.images import TENSORFLOW


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def ingest(
    bundle: dsl.Input[dsl.Artifact],
    source: str,
    source_fingerprint: str,
    examples: dsl.Output[dsl.Dataset],
    beam_runner: str = "direct",
):
    """Reads a table, infers its types over all rows, and divides it into train, eval and test.

    Args:
        bundle: the problem.
        source: file, directory, glob or URI: CSV (also .gz), JSON Lines, Parquet, TFRecord of tf.Example, bq://.
        source_fingerprint: digest of the source's content when the run was submitted; it makes a changed file
            behind the same path a different input, so that no stale result is reused.
        examples: Parquet per split, quarantine and manifest.
        beam_runner: direct, flink, dataflow or spark.
    """
    from tidemill.stage import Stage

    with Stage("ingest") as stage:
        from tidemill.ingest.run import run

        stage.begin()
        stage.report(run(bundle.path, source, source_fingerprint, examples.path, beam_runner))
