"""The train component where training is a TrainJob."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def train(
    bundle: dsl.Input[dsl.Artifact],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    settings: dict,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
    champion: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]  # KFP's notation
    hyperparameters: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
):
    """Trains on nodes of their own, by a TrainJob of Kubeflow Trainer that this task makes, watches and ends.

    A retried step finds the job of the first try and goes on watching.

    Args:
        bundle: the problem; its build_model is used where it has one.
        transformed: as `transform` put out.
        transform_graph: as `transform` put out.
        settings: see `tidemill.trainjob.settings`.
        model: SavedModel with the signatures serving_default, serving_examples and transform_features.
        history: learning curves and TensorBoard logs.
        champion: the model in production, where the problem starts from it.
        hyperparameters: what a tuning found, in place of the problem's own.
    """
    import os
    from pathlib import Path

    from tidemill.stage import Stage

    with Stage("train") as stage:
        from tidemill.jobs.handover import Artefacts
        from tidemill.trainjob.run import run

        stage.begin()
        artefacts = Artefacts(
            bundle=Path(bundle.path),
            transformed=Path(transformed.path),
            transform_graph=Path(transform_graph.path),
            model=Path(model.path),
            history=Path(history.path),
            champion=Path(champion.path) if champion else None,
            hyperparameters=Path(hyperparameters.path) if hyperparameters else None,
        )
        stage.report(run(artefacts, settings, stage.scratch(history.path), stage.run_dir.name, os.environ))
