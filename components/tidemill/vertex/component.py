"""The release components of Vertex AI; their parameters have the names of the local ones."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def find_champion(
    bundle: dsl.Input[dsl.Artifact],
    registry: str,
    champion: dsl.Output[dsl.Model],
    reference: dsl.Output[dsl.Artifact],
):
    """Looks up what is in production, for comparison. Never cached: the registry changes behind the same name.

    Args:
        bundle: the problem.
        registry: `projects/<project>/locations/<region>` of Model Registry.
        champion: copy of the champion's model artefact; an empty directory where there is none.
        reference: statistics of the run that released the champion; an empty directory where there is none.
    """
    from tidemill.stage import Stage

    with Stage("find_champion") as stage:
        from tidemill.vertex.run import find_champion

        stage.begin()
        stage.report(find_champion(bundle.path, registry, champion.path, reference.path))


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
    """Has a custom job of Vertex AI train, watches it, and passes on what it prints and why it failed.

    A retried step finds the job that the first try began; one that failed is begun anew from its checkpoints.

    Args:
        bundle: the problem; its build_model is used where it has one.
        transformed: as `transform` put out.
        transform_graph: as `transform` put out.
        settings: of the target: machines, image, service account, network and key.
        model: SavedModel with the signatures serving_default, serving_examples and transform_features.
        history: learning curves and TensorBoard logs.
        champion: the model in production, where the problem starts from it.
        hyperparameters: what a tuning found, in place of the problem's own.
    """
    from tidemill.stage import Stage

    with Stage("train") as stage:
        from pathlib import Path

        from tidemill.jobs.handover import Artefacts
        from tidemill.vertex.train import train

        stage.begin()
        needed = [Path(artifact.path) for artifact in (bundle, transformed, transform_graph, model, history)]
        optional = [Path(artifact.path) if artifact else None for artifact in (champion, hyperparameters)]
        artefacts = Artefacts(*needed, *optional)
        stage.report(train(artefacts, settings, stage.scratch(history.path), stage.run_dir.name))


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def tune(
    bundle: dsl.Input[dsl.Artifact],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    settings: dict,
    study: dsl.Output[dsl.Artifact],
    folds: dsl.Input[dsl.Dataset] = None,  # type: ignore[assignment]  # KFP's notation
):
    """Has a HyperparameterTuningJob of Vertex AI try configurations, each as a custom job, and watches it.

    A retried step finds the job that the first try began.

    Args:
        bundle: the problem, with its search space.
        transformed: as `transform` put out.
        transform_graph: as `transform` put out.
        settings: of the target: machine, image, service account, network and key of a trial.
        study: all trials, for `conclude`.
        folds: as `fold` put out, where trials are cross-validated.
    """
    from tidemill.stage import Stage

    with Stage("tune") as stage:
        from tidemill.vertex.tuning_jobs import tune

        stage.begin()
        paths = (bundle.path, transformed.path, transform_graph.path)
        shared, run_id = stage.scratch(study.path), stage.run_dir.name
        stage.report(tune(*paths, settings, study.path, shared, run_id, folds.path if folds else None))


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def register(
    bundle: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    blessing: dsl.Input[dsl.Artifact],
    rehearsal: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    registry: str,
    settings: dict,
    registered: dsl.Output[dsl.Model],
    compressed: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]  # KFP's notation
    compression: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
):
    """Uploads the model to Model Registry as the challenger, with its lineage. The same model keeps its version.

    Args:
        bundle: the problem.
        examples: as `ingest` put out; its fingerprints go into the lineage.
        statistics: kept with the version: the reference for drift.
        schema: kept with the version.
        model: as `train` put out.
        blessing: must have passed.
        rehearsal: must have passed.
        evaluation: kept with the version.
        registry: `projects/<project>/locations/<region>` of Model Registry.
        settings: of the target: where models are kept, the serving image, labels and key.
        registered: `registered.json` with name, version, address in Cloud Storage and resource name.
        compressed: kept with the version: smaller forms of the model.
        compression: must have passed, where there is any.
    """
    from tidemill.stage import Stage

    with Stage("register") as stage:
        from pathlib import Path

        from tidemill.registration import Evidence
        from tidemill.vertex.run import register

        stage.begin()
        artifacts = (bundle, examples, statistics, schema, model, blessing, rehearsal, evaluation)
        smaller = {"compressed": compressed, "compression": compression}
        given = {name: Path(artifact.path) for name, artifact in smaller.items() if artifact}
        evidence = Evidence(*[Path(artifact.path) for artifact in artifacts], **given)
        stage.report(register(evidence, registry, settings, registered.path, stage.run_dir.name, stage.origin))


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def deploy(
    registered: dsl.Input[dsl.Model],
    registry: str,
    endpoints: str,
    settings: dict,
    deployment: dsl.Output[dsl.Artifact],
):
    """Deploys the version to the model's endpoint, gives it traffic once it has proved to answer, retires the former.

    A retried step finds what the first try left and goes on.

    Args:
        registered: as `register` put out.
        registry: `projects/<project>/locations/<region>` of Model Registry.
        endpoints: the location of the endpoint; the same.
        settings: of the target: machine, replicas, network, key and share of the traffic.
        deployment: `deployment.json` with the endpoint, the version, the traffic and an example request.
    """
    from tidemill.stage import Stage

    with Stage("deploy") as stage:
        from tidemill.vertex.run import deploy

        stage.begin()
        stage.report(deploy(registered.path, registry, endpoints, settings, deployment.path))


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def batch_predict(
    registry: str,
    model: str,
    version: str,
    source: str,
    destination: str,
    settings: dict,
    prediction: dsl.Output[dsl.Artifact],
):
    """Has Vertex AI predict every row of a JSON Lines file by a registered version.

    A retried step waits for the job that the first try began.

    Args:
        registry: `projects/<project>/locations/<region>` of Model Registry.
        model: the model's name.
        version: its number, or an alias such as `champion`.
        source: `gs://…`, one JSON instance per line.
        destination: `gs://…`, below which the predictions are written.
        settings: of the target: machine, replicas, service account, labels and key.
        prediction: `prediction.json` with the job, the directory of the predictions and the number of rows.
    """
    from tidemill.stage import Stage

    with Stage("batch_predict") as stage:
        from tidemill.vertex.run import batch_predict

        stage.begin()
        run_id = stage.run_dir.name
        stage.report(batch_predict(registry, model, version, source, destination, settings, prediction.path, run_id))
