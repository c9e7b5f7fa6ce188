"""Evaluates a model on the raw test split and decides whether it may be released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidemill.beam import opened_cluster
from tidemill.bundle import open_bundle
from tidemill.evaluate.evaluation import Evaluation, Inputs
from tidemill.files import replaced_directory, write_json


@dataclass(frozen=True)
class EvaluationReport:
    """What the evaluation came to.

    Attributes:
        metrics: the overall metrics that are defined.
        roc: false positive rates, true positive rates and thresholds; binary only.
        confusion: classes, and weight by actual and predicted class; classification only.
        passed: the gate's decision.
        refusals: one sentence per check that refused the model.
        rows: rows of the test split, all of which were evaluated.
        slices: number of slices, the whole included.
        champion: digest of the champion it was compared with.
    """

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]] | None
    confusion: tuple[list[str], list[list[float]]] | None
    passed: bool
    refusals: tuple[str, ...]
    rows: int
    slices: int
    champion: str | None


def run(
    bundle: str | Path,
    examples: str | Path,
    model: str | Path,
    champion: str | Path,
    evaluation: str | Path,
    blessing: str | Path,
    predictions: str | Path,
    beam_runner: str = "direct",
    beam_flags: Sequence[str] = (),
) -> EvaluationReport:
    """Predicts every row of the raw test split, computes metrics per slice and holds them against the limits.

    A model that is refused is a result, not an error: the decision is in ``blessing`` and in the report.

    Args:
        bundle: the problem.
        examples: directory of ingested examples.
        model: directory of the candidate.
        champion: directory of the champion; empty when there is none.
        evaluation: directory that the metrics are written to.
        blessing: directory that the decision is written to.
        predictions: directory that the candidate's answers are written to, one row per test row.
        beam_runner: direct, flink, dataflow or spark.
        beam_flags: Beam's own; see ``tidemill.beam``.

    Raises:
        UsageError: if a flag can't be taken.
        ProblemError: if a limit can't be decided for the task, or the EvalConfig can't be taken.
        DataError: if the test split is empty or its labels can't be read.
    """
    opened = open_bundle(Path(bundle))
    with (
        opened_cluster(opened, beam_runner, beam_flags) as cluster,
        # Entered first, replaced last: what gates and reports trust must not be there before what it is about.
        replaced_directory(Path(blessing)) as blessing_dir,
        replaced_directory(Path(evaluation)) as evaluation_dir,
        replaced_directory(Path(predictions)) as predictions_dir,
    ):
        inputs = Inputs.read(opened, Path(examples), Path(model), Path(champion))
        done = Evaluation.of(inputs, predictions_dir, evaluation_dir / "engine", cluster)
        done.write(evaluation_dir)
        champion_digest = inputs.champion.digest if inputs.champion else None
        write_json(
            blessing_dir / "blessing.json",
            {
                "decision": done.decision.to_json(),
                "challenger": inputs.candidate.digest,
                "champion": champion_digest,
            },
        )
    roc, _ = done.curves()
    return EvaluationReport(
        metrics=done.overall,
        roc=(roc["fpr"], roc["tpr"], roc["thresholds"]) if roc else None,
        confusion=done.confusion(),
        passed=done.decision.passed,
        refusals=tuple(check.message for check in done.decision.refusals),
        rows=int(done.overall["example_count"]),
        slices=inputs.plan.size,
        champion=champion_digest,
    )
