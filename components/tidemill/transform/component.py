"""The transform component: raw examples become what a model takes (tf.Transform)."""

from kfp import dsl

from tidemill.images import TENSORFLOW


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def transform(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    schema: dsl.Input[dsl.Artifact],
    transform_graph: dsl.Output[dsl.Artifact],
    transformed: dsl.Output[dsl.Dataset],
    beam_runner: str = "direct",
    beam_flags: list = [],  # noqa: B006 - KFP takes a default as a constant
):
    """Analyses the training split in full and applies the resulting graph to every split.

    Args:
        bundle: the problem; its preprocessing_fn is used where it has one.
        examples: as `ingest` put out.
        schema: as `validate` put out.
        transform_graph: tf.Transform's output; the exported model carries it.
        transformed: Parquet per split.
        beam_runner: direct, flink, dataflow or spark.
        beam_flags: Beam's own flags, such as --parallelism=8.
    """
    from tidemill.stage import Stage

    with Stage("transform") as stage:
        from tidemill.transform.run import run

        stage.begin()
        report = run(
            bundle.path,
            examples.path,
            schema.path,
            transform_graph.path,
            transformed.path,
            beam_runner,
            beam_flags,
        )
        stage.report(report)
