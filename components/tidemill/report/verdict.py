"""The verdict in words: what was decided, by which numbers, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.report import titles
from tidemill.report.documents import Check, Deployment
from tidemill.report.evidence import Evidence
from tidemill.report.formats import count, duration, interval, milliseconds, number, plural, shortened
from tidemill.report.lineage import command
from tidemill.report.quality import TELLING
from tidemill.report.stages import elapsed, is_gate
from tidemill.runs import TaskRecord

TITLES = {
    "running": "Running",
    "released": "Released",
    "completed": "Completed",
    "refused": "Refused",
    "bad_input": "Bad input",
    "platform_failure": "Platform failure",
    "defect": "Failed",
    "interrupted": "Interrupted",
}
_TONES = {"released": "good", "completed": "good", "refused": "stop", "running": "calm", "interrupted": "calm"}


@dataclass(frozen=True)
class Reason:
    """One check of one gate."""

    gate: str
    check: Check


@dataclass(frozen=True)
class Failure:
    """The error that ended the run, in its parts."""

    task: str
    where: str
    expected: str
    got: str
    remedy: str


@dataclass(frozen=True)
class NextStep:
    """What the reader can do now; ``command`` is to be pasted into a shell, ``answer`` is what it gave."""

    text: str
    command: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Fact:
    """A number that tells the run at a glance."""

    name: str
    value: str
    aside: str = ""


@dataclass(frozen=True)
class VerdictView:
    """The head of the page."""

    name: str
    title: str
    tone: str
    sentence: str
    refusals: Sequence[Reason]
    warnings: Sequence[Reason]
    passed: Sequence[Reason]
    failures: Sequence[Failure]
    next_steps: Sequence[NextStep]
    facts: Sequence[Fact]


def view(evidence: Evidence) -> VerdictView:
    """Sums the run up."""
    reasons = _reasons(evidence)
    refusals = [r for r in reasons if not r.check.passed and r.check.blocking]
    failures = [_failure(task) for task in evidence.tasks if task.status == "failed" and task.error]
    if refusals:  # the gates' own errors only repeat the checks
        failures = [f for f in failures if not is_gate(f.task)]
    return VerdictView(
        name=evidence.verdict,
        title=TITLES[evidence.verdict],
        tone=_TONES.get(evidence.verdict, "fail"),
        sentence=_sentence(evidence, reasons, refusals),
        refusals=refusals,
        warnings=[r for r in reasons if not r.check.passed and not r.check.blocking],
        passed=[r for r in reasons if r.check.passed],
        failures=failures,
        next_steps=_next_steps(evidence, refusals),
        facts=_facts(evidence),
    )


def _reasons(evidence: Evidence) -> list[Reason]:
    judged = (evidence.anomalies, evidence.blessing, evidence.rehearsal, evidence.compression)
    return [Reason(j.decision.gate, check) for j in judged if j is not None for check in j.decision.checks]


def _failure(task: TaskRecord) -> Failure:
    error = task.error or {}
    text = {key: str(error.get(key) or "") for key in ("where", "expected", "got", "remedy", "message")}
    return Failure(
        task.name, text["where"], text["expected"] or text["message"] or "failed", text["got"], text["remedy"]
    )


def _sentence(evidence: Evidence, reasons: Sequence[Reason], refusals: Sequence[Reason]) -> str:
    name = shortened(evidence.run.problem, 63) or "the model"
    failed = next((task for task in evidence.tasks if task.status == "failed"), None)
    at = f" in stage {failed.name}" if failed else ""
    match evidence.verdict:
        case "released":
            version = evidence.registered.version if evidence.registered else ""
            what = f"{name} version {version}" if version != "" else name
            warned = sum(not r.check.passed for r in reasons)
            checks = f"all {plural(len(reasons) - warned, 'check')}" + (" that decide" if warned else "")
            return f"{what} passed {checks} and answers requests."
        case "completed":
            return "All tasks of the pipeline ended without a failure."
        case "refused":
            gates = list(dict.fromkeys(r.gate for r in refusals))
            if not gates:
                return f"A gate refused {name}. It was not released."
            of = sum(r.gate in gates for r in reasons)
            which = " and ".join(gates)
            share = f"{len(refusals)} of {count(of)} checks failed" if of > 1 else "its one check failed"
            return f"The {which} gate refused {name}: {share}. It was not released."
        case "bad_input":
            return f"The input could not be used{at}. Running it again changes nothing until the input is mended."
        case "platform_failure":
            return f"The machine or the backend failed{at}. The input and the model are not at fault."
        case "defect":
            return f"An unexpected error ended the run{at}. This is a defect of tidemill or of the user code it ran."
        case "interrupted":
            return "The run was stopped before its end. The stages that ended are kept."
        case "running":
            return "The run has not ended, or it was killed before it could say so."


def _next_steps(evidence: Evidence, refusals: Sequence[Reason]) -> list[NextStep]:
    match evidence.verdict:
        case "released":
            return [_ask(evidence)] if evidence.deployment and evidence.deployment.curl else []
        case "refused":
            return _advice(evidence, refusals)
        case "bad_input":
            return [NextStep("When it is mended:", command(evidence.run))]
        case "platform_failure" | "interrupted" | "running":
            return [NextStep("Go on from the stages that have ended:", command(evidence.run, resume=True))]
        case "defect":
            failed = [task.name for task in evidence.tasks if task.status == "failed"]
            return [NextStep(f"The trace is in logs/{name}.log, in the run's directory.") for name in failed]
        case _:
            return []


def _ask(evidence: Evidence) -> NextStep:
    deployment = evidence.deployment or Deployment()
    answer = json.dumps(deployment.answer, ensure_ascii=False) if deployment.answer is not None else ""
    share = deployment.traffic.get(str(deployment.version), 100)
    told = "" if share == 100 else f"It has {share} % of the traffic, and the champion the rest. "
    return NextStep(f"{told}Ask the endpoint for a prediction:", deployment.curl, answer)


def _advice(evidence: Evidence, refusals: Sequence[Reason]) -> list[NextStep]:
    gates = {r.gate for r in refusals}
    steps = []
    if "data" in gates:
        steps.append(NextStep("Mend the source, or let a finding pass by naming it under gates.data.allow."))
        if any(r.check.name.startswith("schema.") for r in refusals):
            directory = evidence.run.parameters.get("problem_dir", "PROBLEM_DIR")
            words = ["tidemill", "schema", "diff", str(directory), evidence.run.id]
            steps.append(
                NextStep("If the data are right and the schema is not, see what to change:", shlex.join(words))
            )
    if "model" in gates:
        steps.append(
            NextStep(
                "The slices and curves below show where the model falls short: more data for those rows, better "
                "features, or another model. Moving a limit (gates.quality, gates.fairness in problem.yaml) is a "
                "decision to be reviewed, not a repair."
            )
        )
    if "serving" in gates:
        steps.append(
            NextStep(
                "If it is too slow, make the model smaller or the budget larger (gates.serving in problem.yaml). If it "
                "fails to answer or differs from the offline predictions, the export is at fault: move no limit."
            )
        )
    if "compression" in gates:
        steps.append(
            NextStep(
                "See below what each variant costs. Compress less, or let a variant be left out where it falls short "
                "(`required: false`). Moving a limit (compression.limits in problem.yaml) is a decision to be reviewed."
            )
        )
    return steps


def _facts(evidence: Evidence) -> list[Fact]:
    facts = []
    if evidence.examples:
        rows = evidence.examples.rows
        facts.append(Fact("Rows", count(sum(rows.values())), f"{count(rows.get('test', 0))} to test on"))
    whole = evidence.metrics.whole if evidence.metrics else None
    known = {name: e for name, e in whole.values.items() if e.value is not None} if whole else {}
    for name in [name for name in TELLING if name in known][:3]:
        estimate = known[name]
        facts.append(Fact(titles.metric(name), number(estimate.value), interval(estimate.low, estimate.high)))
    if evidence.rehearsal and evidence.rehearsal.p99_ms is not None:
        facts.append(Fact("Latency, p99", milliseconds(evidence.rehearsal.p99_ms), "one row, over HTTP"))
    wall = evidence.run.wall_s if evidence.run.wall_s is not None else elapsed(evidence.tasks)
    if wall:
        reused = sum(task.status == "cached" for task in evidence.tasks)
        facts.append(Fact("Wall time", duration(wall), f"{plural(reused, 'stage')} reused" if reused else ""))
    return facts if len(facts) > 1 else []
