"""The verdict in words: what was decided, by which numbers, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.report.documents import Check, Estimate
from tidemill.report.evidence import Evidence
from tidemill.report.formats import count, duration, interval, milliseconds, number, plural, words
from tidemill.report.quality import TELLING, overall
from tidemill.runs import TaskRecord

GATE_TASKS = {"data": "data-gate", "model": "model-gate", "serving": "serving-gate"}
_TITLES = {
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
    """What the reader can do now; ``command`` is to be pasted into a shell."""

    text: str
    command: str = ""


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
        failures = [f for f in failures if not _is_gate(f.task)]
    return VerdictView(
        name=evidence.verdict,
        title=_TITLES[evidence.verdict],
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
    judged = (evidence.anomalies, evidence.blessing, evidence.rehearsal)
    return [Reason(j.decision.gate, check) for j in judged if j is not None for check in j.decision.checks]


def _is_gate(task: str) -> bool:
    return task in GATE_TASKS.values()


def _failure(task: TaskRecord) -> Failure:
    error = task.error or {}
    text = {key: str(error.get(key) or "") for key in ("where", "expected", "got", "remedy", "message")}
    return Failure(
        task.name, text["where"], text["expected"] or text["message"] or "failed", text["got"], text["remedy"]
    )


def _sentence(evidence: Evidence, reasons: Sequence[Reason], refusals: Sequence[Reason]) -> str:
    name = evidence.run.problem or "the model"
    failed = next((task for task in evidence.tasks if task.status == "failed"), None)
    at = f" in stage {failed.name}" if failed else ""
    match evidence.verdict:
        case "released":
            version = evidence.registered.version if evidence.registered else ""
            what = f"{name} version {version}" if version != "" else name
            return f"{what} passed {plural(len(reasons), 'check')} of its gates and answers requests."
        case "completed":
            return "All tasks of the pipeline ended without a failure."
        case "refused":
            gates = list(dict.fromkeys(r.gate for r in refusals))
            if not gates:
                return f"A gate refused {name}. It was not released."
            of = sum(r.gate in gates for r in reasons)
            which = " and ".join(gates)
            share = f"{len(refusals)} of {plural(of, 'check')} failed"
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
    resume = NextStep("Go on from the finished stages.", f"tidemill run PROBLEM_DIR --resume {evidence.run.id}")
    match evidence.verdict:
        case "released":
            deployment = evidence.deployment
            return [NextStep("Ask the endpoint.", deployment.curl)] if deployment and deployment.curl else []
        case "refused":
            gates = {r.gate for r in refusals}
            return [
                NextStep(text, command.format(id=evidence.run.id)) for gate, text, command in _ADVICE if gate in gates
            ]
        case "platform_failure" | "interrupted" | "running":
            return [resume]
        case _:
            return []


def _facts(evidence: Evidence) -> list[Fact]:
    facts = []
    if evidence.examples:
        facts.append(
            Fact(
                "rows",
                count(sum(evidence.examples.rows.values())),
                f"{count(evidence.examples.rows.get('test', 0))} to test on",
            )
        )
    whole = overall(evidence.metrics) if evidence.metrics else None
    names = [name for name in TELLING if whole and name in whole.values and whole.values[name].value is not None]
    for name in names[:3]:
        estimate = whole.values[name] if whole else Estimate()
        facts.append(Fact(words(name), number(estimate.value), interval(estimate.low, estimate.high)))
    if evidence.rehearsal and evidence.rehearsal.p99_ms is not None:
        facts.append(Fact("latency p99", milliseconds(evidence.rehearsal.p99_ms), "single row, over HTTP"))
    wall = evidence.run.wall_s if evidence.run.wall_s is not None else sum(task.wall_s for task in evidence.tasks)
    if wall:
        facts.append(Fact("wall time", duration(wall)))
    return facts


_ADVICE = (
    (
        "data",
        "If the data are right and the schema is not, look at the proposed changes and accept them; "
        "otherwise mend the source. A warning that should not block goes into gates.data.allow.",
        "tidemill schema diff PROBLEM_DIR {id}",
    ),
    (
        "model",
        "Look at the slices below that miss their limit: more data for them, better features or another model. "
        "Moving a limit in problem.yaml (gates.quality, gates.fairness) is a decision to be reviewed.",
        "",
    ),
    (
        "serving",
        "Make the model smaller or the budget in problem.yaml (gates.serving) larger; if the answers differ "
        "from the offline predictions, the export is at fault and no limit should move.",
        "",
    ),
)
