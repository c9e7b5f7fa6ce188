"""The tune components: what to try next, one trial of it, the folds it is judged on, and what was found."""

from typing import List  # noqa: UP035 - KFP's notation for a list of artefacts

from kfp import dsl

from tidemill.images import TENSORFLOW


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def fold(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    folds: dsl.Output[dsl.Dataset],
):
    """Divides the training split into the folds of a cross-validation.

    Args:
        bundle: the problem.
        examples: as `ingest` put out: the keys of the folds.
        transformed: as `transform` put out.
        folds: transformed examples by fold, each with a training and an eval split.
    """
    from tidemill.stage import Stage

    with Stage("fold") as stage:
        from tidemill.tune.folds import run

        stage.begin()
        stage.report(run(bundle.path, examples.path, transformed.path, folds.path))


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def suggest(
    bundle: dsl.Input[dsl.Artifact],
    study: dsl.Output[dsl.Artifact],
    continued: dsl.Output[dsl.Artifact],
    before: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]  # KFP's notation
    results: dsl.Input[List[dsl.Artifact]] = None,  # type: ignore[assignment]  # noqa: UP006
) -> List[str]:  # noqa: UP006
    """Says what the next round of a tuning tries, from what the rounds before came to.

    Args:
        bundle: the problem.
        study: all trials so far.
        continued: checkpoints of the trials that go on.
        before: the study of the round before.
        results: what the trials of the round before came to.
        Output: what each trial of the round is given; KFP's name for what is returned.
    """
    from tidemill.stage import Stage

    with Stage("suggest") as stage:
        from tidemill.tune.run import suggest as run

        stage.begin()
        found = [result.path for result in results or []]
        report = run(bundle.path, before.path if before else None, found, study.path, continued.path)
        stage.report(report)
    return list(report.items)


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def trial(
    bundle: dsl.Input[dsl.Artifact],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    item: str,
    result: dsl.Output[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]  # KFP's notation
    folds: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]
    continued: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
    champion: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
):
    """Trains one configuration, from the checkpoints of its earlier round where it has some.

    Args:
        bundle: the problem.
        transformed: as `transform` put out.
        transform_graph: as `transform` put out.
        item: what to try.
        result: what it came to, and the checkpoints that a longer training goes on from.
        examples: as `ingest` put out, where fairness counts.
        folds: as `fold` put out, where trials are cross-validated.
        continued: checkpoints of the trials that go on.
        champion: the model in production, where the problem starts from it.
    """
    from tidemill.stage import Stage

    with Stage("trial") as stage:
        from tidemill.tune.trial import run

        stage.begin()
        stage.report(
            run(
                bundle.path,
                transformed.path,
                transform_graph.path,
                item,
                result.path,
                stage.scratch(result.path),
                examples.path if examples else None,
                folds.path if folds else None,
                continued.path if continued else None,
                champion.path if champion else None,
            )
        )


@dsl.component(base_image=TENSORFLOW, install_kfp_package=False)
def conclude(
    bundle: dsl.Input[dsl.Artifact],
    before: dsl.Input[dsl.Artifact],
    hyperparameters: dsl.Output[dsl.Artifact],
    tuning: dsl.Output[dsl.Artifact],
    results: dsl.Input[List[dsl.Artifact]] = None,  # type: ignore[assignment]  # noqa: UP006
):
    """Chooses the best trial of a tuning.

    Args:
        bundle: the problem.
        before: the study of the last round.
        hyperparameters: of the best trial, for `train`.
        tuning: all trials, and what mattered.
        results: what the trials of the last round came to, where the study doesn't have it.
    """
    from tidemill.stage import Stage

    with Stage("conclude") as stage:
        from tidemill.tune.run import conclude as run

        stage.begin()
        found = [result.path for result in results or []]
        stage.report(run(bundle.path, before.path, found, hyperparameters.path, tuning.path))
