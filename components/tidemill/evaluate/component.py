"""The evaluate component: metrics, slices, fairness and the model gate's decision (TFMA)."""

from kfp import dsl

from tidemill.images import TENSORFLOW


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def evaluate(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    champion: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    blessing: dsl.Output[dsl.Artifact],
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
    beam_runner: str = "direct",
    beam_flags: list = [],  # noqa: B006 - KFP takes a default as a constant
):
    """Predicts the raw test split with the exported model and holds the metrics against the problem's limits.

    Args:
        bundle: the problem.
        examples: as `ingest` put out; the test split is used, all of it.
        model: as `train` put out.
        champion: the model in production, or an empty directory.
        evaluation: metrics per slice in TFMA's format, as JSON and as Parquet.
        blessing: the model gate's decision with reasons.
        predictions: the model's answer to every test row.
        metrics: the overall metrics, for KFP's page.
        roc: ROC curve and confusion matrix, for KFP's page.
        beam_runner: direct, flink, dataflow or spark.
        beam_flags: Beam's own flags, such as --parallelism=8.
    """
    from tidemill.stage import Stage

    with Stage("evaluate") as stage:
        from tidemill.evaluate.run import run

        stage.begin()
        report = run(
            bundle.path,
            examples.path,
            model.path,
            champion.path,
            evaluation.path,
            blessing.path,
            predictions.path,
            beam_runner,
            beam_flags,
        )
        for name, value in report.metrics.items():
            metrics.log_metric(name, value)
        if report.roc:
            roc.log_roc_curve(*report.roc)
        if report.confusion:
            roc.log_confusion_matrix(*report.confusion)
        stage.report(report)
