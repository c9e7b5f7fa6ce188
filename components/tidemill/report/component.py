"""The report component: one page that tells the whole run."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def report(
    status: dsl.PipelineTaskFinalStatus,
    page: dsl.Output[dsl.HTML],
):
    """Writes the run's page, whether it succeeded, was refused or failed.

    Args:
        status: how the pipeline ended, from KFP.
        page: one HTML file that needs no network.
    """
    from tidemill.stage import Stage

    with Stage("report") as stage:
        import os

        from tidemill.report.conclusion import PLAN_VARIABLE, Plan, conclude
        from tidemill.report.run import run

        stage.begin()
        if PLAN_VARIABLE in os.environ:
            conclude(stage.run_dir, Plan.parse(os.environ[PLAN_VARIABLE]), stage.origin)
        stage.report(run(stage.run_dir, page.path))
