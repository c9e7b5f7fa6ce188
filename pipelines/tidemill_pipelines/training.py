"""The training pipeline: from a table to an answering endpoint."""

from kfp import dsl

from tidemill.deploy.component import deploy
from tidemill.evaluate.component import evaluate
from tidemill.gate.component import gate
from tidemill.ingest.component import ingest
from tidemill.register.component import find_champion, register
from tidemill.rehearse.component import rehearse
from tidemill.report.component import report
from tidemill.train.component import train
from tidemill.transform.component import transform
from tidemill.validate.component import validate


@dsl.pipeline(name="training", description="Ingest, validate, transform, train, evaluate, rehearse, register, deploy.")
def training(
    data_bundle: str,
    feature_bundle: str,
    model_bundle: str,
    whole_bundle: str,
    source: str,
    source_fingerprint: str,
    registry: str,
    endpoints: str,
    run_id: str,
    run_dir: str,
    beam_runner: str = "direct",
):
    """Releases a model, or ends at the gate that refused it. The report is written either way.

    Args:
        data_bundle: the packed problem as it concerns the data; see `tidemill.bundle`.
        feature_bundle: … as it concerns the transform graph.
        model_bundle: … as it concerns the model.
        whole_bundle: … with all its gates.
        source: the table.
        source_fingerprint: digest of the table's content.
        registry: root of the model registry.
        endpoints: directory with the state of the local endpoints.
        run_id: name of this run.
        run_dir: directory of this run's records.
        beam_runner: direct, flink, dataflow or spark.
    """
    final = report(run_dir=run_dir)
    final.set_caching_options(False)
    with dsl.ExitHandler(final, name="release"):
        data = dsl.importer(artifact_uri=data_bundle, artifact_class=dsl.Artifact, reimport=False).output
        features = dsl.importer(artifact_uri=feature_bundle, artifact_class=dsl.Artifact, reimport=False).output
        shape = dsl.importer(artifact_uri=model_bundle, artifact_class=dsl.Artifact, reimport=False).output
        bundle = dsl.importer(artifact_uri=whole_bundle, artifact_class=dsl.Artifact, reimport=False).output
        champion = find_champion(bundle=bundle, registry=registry)
        champion.set_caching_options(False)
        examples = ingest(
            bundle=data, source=source, source_fingerprint=source_fingerprint, beam_runner=beam_runner
        ).output
        validated = validate(bundle=data, examples=examples, reference=champion.outputs["reference"])
        data_gate = gate(evidence=validated.outputs["anomalies"]).set_display_name("data-gate")
        transformed = transform(
            bundle=features, examples=examples, schema=validated.outputs["schema"], beam_runner=beam_runner
        ).after(data_gate)
        trained = train(
            bundle=shape,
            transformed=transformed.outputs["transformed"],
            transform_graph=transformed.outputs["transform_graph"],
        )
        evaluated = evaluate(
            bundle=bundle,
            examples=examples,
            model=trained.outputs["model"],
            champion=champion.outputs["champion"],
        )
        model_gate = gate(evidence=evaluated.outputs["blessing"]).set_display_name("model-gate")
        rehearsed = rehearse(
            bundle=bundle,
            examples=examples,
            model=trained.outputs["model"],
            predictions=evaluated.outputs["predictions"],
        ).after(model_gate)
        serving_gate = gate(evidence=rehearsed.output).set_display_name("serving-gate")
        registered = register(
            bundle=bundle,
            examples=examples,
            statistics=validated.outputs["statistics"],
            schema=validated.outputs["schema"],
            model=trained.outputs["model"],
            blessing=evaluated.outputs["blessing"],
            rehearsal=rehearsed.output,
            evaluation=evaluated.outputs["evaluation"],
            registry=registry,
            run_id=run_id,
        ).after(serving_gate)
        registered.set_caching_options(False)
        deployed = deploy(registered=registered.output, registry=registry, endpoints=endpoints)
        deployed.set_caching_options(False)
