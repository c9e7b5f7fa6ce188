"""The training pipeline: from a table to an answering endpoint."""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from tidemill.compress.component import compress
from tidemill.evaluate.component import evaluate
from tidemill.gate.component import gate
from tidemill.ingest.component import ingest, locate
from tidemill.rehearse.component import rehearse
from tidemill.report.component import report
from tidemill.transform.component import transform
from tidemill.validate.component import validate
from tidemill_pipelines.choices import Choices
from tidemill_pipelines.release import Release, takes


def training_pipeline(release: Release, choices: Choices) -> Any:
    """Returns the pipeline that releases a model by way of ``release``; all else is the same on every target."""
    description = "Ingest, validate, transform, train, evaluate, rehearse, register, deploy."
    return composed("training", description, release, choices, lambda **_: {})


def composed(
    name: str, description: str, release: Release, choices: Choices, found: Callable[..., Mapping[str, Any]]
) -> Any:
    """Returns the pipeline with what a tuning puts between transform and train.

    Args:
        found: makes tasks of the bundles ``whole`` and ``shape``, ``examples``, the task ``transformed`` and
            ``origin``, the champion where training starts from it; returns what ``train`` takes of them.
    """

    @dsl.pipeline(name=name, description=description)
    def pipeline(
        data_bundle: str,
        feature_bundle: str,
        model_bundle: str,
        whole_bundle: str,
        source: str,
        registry: str,
        endpoints: str,
        beam_runner: str = "direct",
        beam_flags: list = [],  # noqa: B006 - KFP takes a default as a constant
        workers: int = 1,
    ):
        """Releases a model, or ends at the gate that refused it. The report is written either way.

        Args:
            data_bundle: the packed problem as it concerns the data; see `tidemill.bundle`.
            feature_bundle: … as it concerns the transform graph.
            model_bundle: … as it concerns the model.
            whole_bundle: … with all its gates.
            source: the table; may hold templates of the time of the run.
            registry: where models are registered.
            endpoints: where models answer.
            beam_runner: direct, flink, dataflow or spark.
            beam_flags: Beam's own flags, such as --parallelism=8.
            workers: processes of the training task's machine that train together.
        """
        final = report()
        final.set_caching_options(False)
        with dsl.ExitHandler(final, name="release"):
            data = dsl.importer(artifact_uri=data_bundle, artifact_class=dsl.Artifact, reimport=False).output
            features = dsl.importer(artifact_uri=feature_bundle, artifact_class=dsl.Artifact, reimport=False).output
            shape = dsl.importer(artifact_uri=model_bundle, artifact_class=dsl.Artifact, reimport=False).output
            bundle = dsl.importer(artifact_uri=whole_bundle, artifact_class=dsl.Artifact, reimport=False).output
            located = locate(source=source, scheduled=release.scheduled, created=release.created)
            located.set_caching_options(False)
            champion = release.find_champion(bundle=bundle, registry=registry)
            champion.set_caching_options(False)
            examples = ingest(
                bundle=data,
                source=located.outputs["located"],
                source_fingerprint=located.outputs["fingerprint"],
                beam_runner=beam_runner,
                beam_flags=beam_flags,
            ).output
            validated = validate(bundle=data, examples=examples, reference=champion.outputs["reference"])
            data_gate = gate(evidence=validated.outputs["anomalies"]).set_display_name("data-gate")
            transformed = transform(
                bundle=features,
                examples=examples,
                schema=validated.outputs["schema"],
                beam_runner=beam_runner,
                beam_flags=beam_flags,
            ).after(data_gate)
            origin = {"champion": champion.outputs["champion"]} if choices.from_champion else {}
            chosen = found(whole=bundle, shape=shape, examples=examples, transformed=transformed, origin=origin)
            trained = release.train(
                bundle=shape,
                transformed=transformed.outputs["transformed"],
                transform_graph=transformed.outputs["transform_graph"],
                **origin,
                **chosen,
                **({"workers": workers} if takes(release.train, "workers") else {}),
                **release.extra(release.train),
            )
            model, smaller = trained.outputs["model"], None
            if choices.compresses:
                smaller = compress(
                    bundle=bundle,
                    examples=examples,
                    transformed=transformed.outputs["transformed"],
                    transform_graph=transformed.outputs["transform_graph"],
                    model=model,
                    champion=champion.outputs["champion"],
                    **chosen,
                )
                model = smaller.outputs["released"] if choices.releases_variant else model
            evaluated = evaluate(
                bundle=bundle,
                examples=examples,
                model=model,
                champion=champion.outputs["champion"],
                beam_runner=beam_runner,
                beam_flags=beam_flags,
            )
            model_gate = gate(evidence=evaluated.outputs["blessing"]).set_display_name("model-gate")
            rehearsed = rehearse(
                bundle=bundle,
                examples=examples,
                model=model,
                predictions=evaluated.outputs["predictions"],
            ).after(model_gate)
            serving_gate = gate(evidence=rehearsed.output).set_display_name("serving-gate")
            gates, kept = [serving_gate], {}
            if smaller:
                kept = {name: smaller.outputs[name] for name in ("compressed", "compression")}
                gates.append(gate(evidence=kept["compression"]).set_display_name("compression-gate"))
            registered = release.register(
                bundle=bundle,
                examples=examples,
                statistics=validated.outputs["statistics"],
                schema=validated.outputs["schema"],
                model=model,
                blessing=evaluated.outputs["blessing"],
                rehearsal=rehearsed.output,
                evaluation=evaluated.outputs["evaluation"],
                registry=registry,
                **kept,
                **release.extra(release.register),
            ).after(*gates)
            registered.set_caching_options(False)
            deployed = release.deploy(
                registered=registered.outputs["registered"],
                registry=registry,
                endpoints=endpoints,
                **release.extra(release.deploy),
            )
            deployed.set_caching_options(False)

    return pipeline
