"""The compress component: smaller forms of the model, measured and judged."""

from kfp import dsl

from tidemill.images import TENSORFLOW


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def compress(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    champion: dsl.Input[dsl.Model],
    compressed: dsl.Output[dsl.Artifact],
    compression: dsl.Output[dsl.Artifact],
    released: dsl.Output[dsl.Model],
    hyperparameters: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]  # KFP's notation
):
    """Makes the variants that the problem asks for, and holds each against its limits on the raw test split.

    Args:
        bundle: the problem.
        examples: as `ingest` put out.
        transformed: as `transform` put out; what is pruned or distilled is trained on it.
        transform_graph: as `transform` put out.
        model: as `train` put out.
        champion: the model in production, or an empty directory.
        compressed: a directory per variant, and sizes, latencies, metrics and their differences in `manifest.json`.
        compression: the compression gate's decision with reasons.
        released: the variant that takes the model's place; an empty directory where none does.
        hyperparameters: what a tuning found, by which the model was trained.
    """
    from tidemill.stage import Stage

    with Stage("compress") as stage:
        from tidemill.compress.run import run

        stage.begin()
        checkpoints = stage.scratch(compressed.path)
        stage.report(
            run(
                bundle.path,
                examples.path,
                transformed.path,
                transform_graph.path,
                model.path,
                champion.path,
                compressed.path,
                compression.path,
                released.path,
                checkpoints,
                hyperparameters.path if hyperparameters else None,
            )
        )
