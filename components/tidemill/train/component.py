"""The train component: a Keras model, exported with its transform graph."""

from kfp import dsl

from tidemill.images import TENSORFLOW


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def train(
    bundle: dsl.Input[dsl.Artifact],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
    workers: int = 1,
    champion: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]  # KFP's notation
    hyperparameters: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
):
    """Trains the default model of the problem or the user's, resuming from checkpoints of a killed try.

    Args:
        bundle: the problem; its build_model is used where it has one.
        transformed: as `transform` put out.
        transform_graph: as `transform` put out.
        model: SavedModel with the signatures serving_default, serving_examples and transform_features.
        history: learning curves and TensorBoard logs.
        workers: processes of the task's machine that train together; one is the task's own.
        champion: the model in production, where the problem starts from it.
        hyperparameters: what a tuning found, in place of the problem's own.
    """
    from tidemill.stage import Stage

    with Stage("train") as stage:
        from tidemill.train.task import train

        stage.begin()
        stage.report(
            train(
                bundle.path,
                transformed.path,
                transform_graph.path,
                model.path,
                history.path,
                stage.scratch(history.path),
                champion=champion.path if champion else None,
                hyperparameters=hyperparameters.path if hyperparameters else None,
                workers=workers,
            )
        )
