"""The deploy component: the registered version starts to answer."""

from kfp import dsl

from tidemill.images import SERVING


@dsl.component(base_image=SERVING, install_kfp_package=False)
def deploy(
    registered: dsl.Input[dsl.Model],
    registry: str,
    endpoints: str,
    deployment: dsl.Output[dsl.Artifact],
):
    """Starts the model's local endpoint, or lets the running one take the version over, and makes it champion.

    A retried step finds what the first try left and goes on.

    Args:
        registered: as `register` put out.
        registry: root of the registry.
        endpoints: directory with the state of the local endpoints.
        deployment: `deployment.json` with the address, the version and an example request.
    """
    from tidemill.stage import Stage

    with Stage("deploy") as stage:
        from tidemill.deploy.run import run

        stage.begin()
        stage.report(run(registered.path, registry, endpoints, deployment.path))
