"""The gate component: where a decision becomes a stop."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def gate(evidence: dsl.Input[dsl.Artifact]):
    """Ends with exit code 3 and the reasons if the evidence says no, so that nothing after it runs.

    It is a task of its own so that the evidence, an output of a task that succeeded, can always be looked at.

    Args:
        evidence: anomalies, blessing, rehearsal or compression.
    """
    from tidemill.stage import Stage

    with Stage("gate") as stage:
        from tidemill.gate.run import run

        stage.begin()
        stage.report(run(evidence.path))
