"""The components that release on KServe."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def deploy(
    registered: dsl.Input[dsl.Model],
    registry: str,
    endpoints: str,
    settings: dict,
    deployment: dsl.Output[dsl.Artifact],
):
    """Lets the version answer on KServe: ready and tried first, then by its share of the traffic.

    A retried step finds what the first try left and goes on.

    Args:
        registered: as `register` put out.
        registry: root of the registry, on the store's volume.
        endpoints: the namespace that models are served in.
        settings: see `tidemill.kserve.settings`.
        deployment: `deployment.json` with the address, the shares and an example request.
    """
    import os

    from tidemill.execution import IMAGE_VARIABLE
    from tidemill.stage import Stage

    with Stage("deploy") as stage:
        from tidemill.kserve.run import run

        stage.begin()
        image = os.environ.get(IMAGE_VARIABLE)
        stage.report(run(registered.path, registry, endpoints, settings, deployment.path, image))


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def roll_out(
    model: str,
    version: int,
    back: bool,
    traffic_percent: int,
    registry: str,
    endpoints: str,
    settings: dict,
    deployment: dsl.Output[dsl.Artifact],
):
    """Releases a registered version by hand, or goes back from one to the champion before it.

    Args:
        model: its name in the registry.
        version: that is to answer, or is to be left; 0 for the challenger.
        back: whether the version is to be left.
        traffic_percent: share of the version; what is left stays with the champion.
        registry: root of the registry, on the store's volume.
        endpoints: the namespace that models are served in.
        settings: see `tidemill.kserve.settings`.
        deployment: `deployment.json` with the address, the shares and an example request.
    """
    import os

    from tidemill.execution import IMAGE_VARIABLE
    from tidemill.stage import Stage

    with Stage("roll_out") as stage:
        from tidemill.kserve.run import roll_out

        stage.begin()
        image = os.environ.get(IMAGE_VARIABLE)
        report = roll_out(model, version, back, traffic_percent, registry, endpoints, settings, deployment.path, image)
        stage.report(report)
