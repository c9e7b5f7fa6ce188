"""The report component: one page that tells the whole run."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def report(
    run_dir: str,
    status: dsl.PipelineTaskFinalStatus,
    page: dsl.Output[dsl.HTML],
):
    """Writes the run's page, whether it succeeded, was refused or failed.

    Args:
        run_dir: the run's directory, with the records of its tasks.
        status: how the pipeline ended, from KFP.
        page: one HTML file that needs no network.
    """
    from tidemill.stage import Stage

    with Stage("report") as stage:
        from tidemill.report.run import run

        stage.begin()
        stage.report(run(run_dir, page.path))
