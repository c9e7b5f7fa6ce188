"""The register components: the registry's champion, and a new version in it."""

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
        registry: root of the registry.
        champion: copy of the champion's model artefact; an empty directory where there is none.
        reference: statistics of the run that released the champion; an empty directory where there is none.
    """
    from tidemill.stage import Stage

    with Stage("find_champion") as stage:
        from tidemill.register.run import find_champion

        stage.begin()
        stage.report(find_champion(bundle.path, registry, champion.path, reference.path))


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
    registered: dsl.Output[dsl.Model],
    compressed: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]  # KFP's notation
    compression: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
):
    """Gives the model a version and the alias `challenger`, with its lineage. The same model keeps its version.

    Args:
        bundle: the problem.
        examples: as `ingest` put out; its fingerprints go into the lineage.
        statistics: kept with the version: the reference for drift.
        schema: kept with the version.
        model: as `train` put out.
        blessing: must have passed.
        rehearsal: must have passed.
        evaluation: kept with the version.
        registry: root of the registry.
        registered: `registered.json` with name, version and path in the registry.
        compressed: kept with the version: smaller forms of the model.
        compression: must have passed, where there is any.
    """
    from tidemill.stage import Stage

    with Stage("register") as stage:
        from tidemill.register.run import run

        stage.begin()
        stage.report(
            run(
                bundle.path,
                examples.path,
                statistics.path,
                schema.path,
                model.path,
                blessing.path,
                rehearsal.path,
                evaluation.path,
                registry,
                stage.run_dir.name,
                registered.path,
                stage.origin,
                compressed.path if compressed else None,
                compression.path if compression else None,
            )
        )
