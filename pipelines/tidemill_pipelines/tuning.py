"""The tuning pipeline: the training pipeline, with a search for hyperparameters before it trains."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from tidemill.errors import UsageError
from tidemill.tune.component import conclude, fold, suggest, trial
from tidemill_pipelines.choices import Choices, Rounds
from tidemill_pipelines.release import Component, Release
from tidemill_pipelines.training import composed


def tuning_pipeline(release: Release, choices: Choices) -> Any:
    """Returns the pipeline that tries configurations in rounds, then releases a model of the best.

    Raises:
        UsageError: if the problem has nothing to tune.
    """
    rounds = choices.tuning
    if rounds is None:
        remedy = "give it `tuning.space`: components/tidemill/tune/README.md shows one"
        raise UsageError("pipeline tuning", "needs `tuning` in problem.yaml", remedy=remedy)
    description = "Ingest, validate, transform, tune in rounds, train, evaluate, rehearse, register, deploy."

    def found(**given: Any) -> Mapping[str, Any]:
        if release.tune is not None:
            return {"hyperparameters": _managed(release, release.tune, rounds, **given)}
        return {"hyperparameters": _searched(rounds, **given)}

    return composed("tuning", description, release, choices, found)


def _searched(
    rounds: Rounds, whole: Any, shape: Any, examples: Any, transformed: Any, origin: Mapping[str, Any]
) -> Any:
    """Makes the tasks of all rounds and returns the hyperparameters that they find.

    Each round's trials are one loop, whose list the round's `suggest` puts out: what is tried next hangs on what all
    trials before came to, while those of one round know nothing of each other and are trained at the same time.
    """
    data = {name: transformed.outputs[name] for name in ("transformed", "transform_graph")} | dict(origin)
    if rounds.fair:
        data["examples"] = examples
    if rounds.cross_validated:
        data["folds"] = fold(bundle=whole, examples=examples, transformed=data["transformed"]).output
    past: dict[str, Any] = {}
    for number in range(1, rounds.count + 1):
        suggested = suggest(bundle=whole, **past).set_display_name(f"suggest-{number}").after(transformed)
        resumed = {"continued": suggested.outputs["continued"]} if past else {}
        with dsl.ParallelFor(
            items=suggested.outputs["Output"], parallelism=rounds.parallel, name=f"round-{number}"
        ) as item:
            tried = trial(bundle=shape, item=item, **data, **resumed).set_display_name(f"round-{number}")
        past = {"before": suggested.outputs["study"], "results": dsl.Collected(tried.outputs["result"])}
    return conclude(bundle=whole, **past).outputs["hyperparameters"]


def _managed(
    release: Release,
    tune: Component,
    rounds: Rounds,
    whole: Any,
    examples: Any,
    transformed: Any,
    origin: Mapping[str, Any],
    **_: Any,
) -> Any:
    """Makes one task that has a service try configurations, and returns the hyperparameters that it finds.

    Raises:
        UsageError: if training starts from the champion, which the service's trials are not given.
    """
    if origin:
        remedy = "leave training.managed_tuning out of the target's file"
        raise UsageError("training.start_from", "can't be champion where a service tunes", remedy=remedy)
    data = {name: transformed.outputs[name] for name in ("transformed", "transform_graph")}
    if rounds.cross_validated:
        data["folds"] = fold(bundle=whole, examples=examples, transformed=data["transformed"]).output
    tuned = tune(bundle=whole, **data, **release.extra(tune))
    return conclude(bundle=whole, before=tuned.outputs["study"]).outputs["hyperparameters"]
