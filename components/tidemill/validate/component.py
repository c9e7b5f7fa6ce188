"""The validate component: statistics, schema, anomalies, skew and drift (TFDV)."""

from kfp import dsl

from tidemill.images import VALIDATION


@dsl.component(base_image=VALIDATION, install_kfp_package=False)
def validate(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    reference: dsl.Input[dsl.Artifact],
    statistics: dsl.Output[dsl.Artifact],
    schema: dsl.Output[dsl.Artifact],
    anomalies: dsl.Output[dsl.Artifact],
):
    """Computes statistics per split and sensitive slice and holds them against schema, limits and the last release.

    Args:
        bundle: the problem; its curated schema is used where it has one.
        examples: as `ingest` put out.
        reference: statistics of the last released run, or an empty directory.
        statistics: TFDV statistics and a summary for the report.
        schema: the schema that was used: the curated or the inferred one.
        anomalies: what was found, and the data gate's decision on it.
    """
    from tidemill.stage import Stage

    with Stage("validate") as stage:
        from tidemill.validate.run import run

        stage.begin()
        stage.report(run(bundle.path, examples.path, reference.path, statistics.path, schema.path, anomalies.path))
