"""The rehearse component: the exported model answers over HTTP before anyone depends on it."""

from kfp import dsl

from tidemill.images import SERVING


@dsl.component(base_image=SERVING, install_kfp_package=False)
def rehearse(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Dataset],
    rehearsal: dsl.Output[dsl.Artifact],
):
    """Starts the serving process as it will run, replays raw test rows as JSON, and compares and times the answers.

    Args:
        bundle: the problem.
        examples: as `ingest` put out.
        model: as `train` put out.
        predictions: what `evaluate` predicted for the same rows.
        rehearsal: differences, latencies and the serving gate's decision.
    """
    from tidemill.stage import Stage

    with Stage("rehearse") as stage:
        from tidemill.rehearse.run import run

        stage.begin()
        stage.report(run(bundle.path, examples.path, model.path, predictions.path, rehearsal.path))
