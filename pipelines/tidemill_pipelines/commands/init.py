"""``tidemill init``: a first problem.yaml from a table and the name of its label."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tidemill.errors import UsageError
from tidemill.files import write_text
from tidemill.ingest.suggestion import Suggestion, suggest
from tidemill_pipelines.console import Json, out, print_json

_WIDTH = 118
_MOST_SLICES = 20


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where problem.yaml is written; made if need be.")],
    source: Annotated[str, typer.Option(help="The table: CSV, JSON Lines, Parquet or TFRecord; directory or glob.")],
    label: Annotated[str, typer.Option(help="The column to predict.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a problem.yaml that is there.")] = False,
    json_output: Json = False,
) -> None:
    """Look at a table and write a first problem.yaml: it trains as it is, and says what was guessed and why.

    Columns that look like identifiers, sampling weights or leaks of the label are left out and named. Columns that
    look sensitive are listed for you to confirm.

    Examples:

        tidemill init problems/income --source adult.csv --label income-per-year

        tidemill init problems/churn --source 'exports/*.parquet' --label churned --force
    """
    from tidemill.bundle import PROBLEM_FILE
    from tidemill.problem import parse_problem

    path = directory / PROBLEM_FILE
    if path.exists() and not force:
        raise UsageError(str(path), "is there already", remedy="`--force` replaces it")
    from tidemill_pipelines.targets.local.environments import call

    facts = call("tensorflow", "tidemill.ingest.profile", [source, label])
    suggestion = suggest(facts["label"], facts["columns"])
    if not suggestion.features:
        reasons = "; ".join(f"{name} {reason}" for name, reason in suggestion.left_out.items())
        raise UsageError(source, "has no column to learn from", reasons or "the label alone")
    text = problem_text(directory.resolve().name, facts, suggestion)
    parse_problem(text, str(path))
    write_text(path, text)
    _tell(path, source, facts, suggestion, json_output)


def problem_text(name: str, facts: Mapping[str, Any], suggestion: Suggestion) -> str:
    """Returns a commented problem.yaml.

    Args:
        name: what the problem is to be called; brought to the form that names must have.
        facts: the JSON of ``tidemill.ingest.profile.TableFacts``.
        suggestion: what was made of it.
    """
    sections = [
        _head(name, facts, suggestion),
        _features(suggestion),
        _left_out(suggestion),
        _roles(facts, suggestion),
        _reading(facts),
        _gates(facts, suggestion),
    ]
    return "\n".join("\n".join(lines) + "\n" for lines in sections if lines)


def _head(name: str, facts: Mapping[str, Any], suggestion: Suggestion) -> list[str]:
    label = facts["label"]
    target = {"column": label["name"]} | ({"positive": suggestion.positive} if suggestion.positive else {})
    scarce = _scarce(facts)
    advice = f"{scarce or 'It trains as it is'}; read it through before you trust it."
    lines = [
        *_comment(
            f"Written by `tidemill init` from {Path(facts['source']).name}: {facts['rows']:,} rows, "
            f"{len(facts['columns']) + 1} columns. {advice}"
        ),
        f"name: {_name(name)}",
        f"task: {suggestion.task}  # {_plain(suggestion.why)}",
        f"label: {_flow(target)}",
    ]
    if label["missing"]:
        lines += _comment(f"{label['missing']:.1%} of the rows have no label; they are set aside (quarantine).")
    return lines


def _features(suggestion: Suggestion) -> list[str]:
    entries = []
    for name, (settings, remark) in suggestion.features.items():
        value = settings["kind"] if len(settings) == 1 else _flow(settings)
        entries.append((f"  {_flow(name)}: {value}", remark))
    width = min(60, max(len(entry) for entry, _ in entries))
    return ["features:", *(f"{entry:<{width}}  # {_plain(remark)}" for entry, remark in entries)]


def _left_out(suggestion: Suggestion) -> list[str]:
    if not suggestion.left_out:
        return []
    return ["# Left out; add a line above to use one all the same:"] + [
        f"#   {_flow(name)}: {_plain(reason)}" for name, reason in suggestion.left_out.items()
    ]


def _roles(facts: Mapping[str, Any], suggestion: Suggestion) -> list[str]:
    lines = []
    distinct = {column["name"]: column["distinct"] for column in facts["columns"]}
    if suggestion.sensitive:
        few = [name for name in suggestion.sensitive if 2 <= distinct[name] <= _MOST_SLICES]
        many = [name for name in suggestion.sensitive if distinct[name] > _MOST_SLICES]
        lines += _comment(
            f"Suspected sensitive: {', '.join(suggestion.sensitive)}. Confirm, and decide whether the model may use "
            "them; uncomment to have quality and fairness measured for each group, and set gates.fairness to hold "
            "limits."
        )
        if few:
            slices: list[Any] = [*few, few[:2]] if len(few) > 1 else list(few)
            lines.append(f"# sensitive: {_flow(slices)}")
        if many:
            lines += _comment(f"({', '.join(many)}: too many values for slices; add a column of ranges.)")
    if suggestion.weight:
        lines += _comment("To count each row by its weight in training and evaluation:")
        lines.append(f"# weight: {_flow(suggestion.weight)}")
    if suggestion.time:
        lines += _comment("To train on the oldest rows and test on the newest:")
        lines += [f"# time: {_flow(suggestion.time)}", "# split: {method: temporal}"]
    if suggestion.group:
        lines += _comment("If several rows belong to one entity, keep them on one side of the split:")
        lines.append(f"# group: {_flow([suggestion.group])}")
    return lines


def _scarce(facts: Mapping[str, Any]) -> str | None:
    """Returns what to know about a table with fewer rows than the data gate wants by default."""
    from tidemill.gates import DataGate

    wanted = DataGate().min_rows
    if facts["rows"] >= wanted:
        return None
    return f"{facts['rows']:,} rows are too few: a run is refused below {wanted:,} (gates.data.min_rows)"


def _detected(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of ``ingest`` that aren't the defaults."""
    given: dict[str, Any] = {}
    if facts["delimiter"] != ",":
        given["delimiter"] = facts["delimiter"]
    if facts["encoding"] != "utf-8":
        given["encoding"] = facts["encoding"]
    if list(facts["null_values"]) != [""]:
        given["null_values"] = list(facts["null_values"])
    return given


def _reading(facts: Mapping[str, Any]) -> list[str]:
    given = _detected(facts)
    return [f"ingest: {_flow(given)}"] if given else []


def _gates(facts: Mapping[str, Any], suggestion: Suggestion) -> list[str]:
    baseline, metric, margin = {
        "binary_classification": ("prior", "auc", 0.05),
        "multiclass_classification": ("majority", "accuracy", 0.01),
        "regression": ("mean", "rmse", 0.0),
    }[suggestion.task]
    unreadable = sum(facts["unreadable"].values())
    refused = unreadable / (facts["rows"] + unreadable) + facts["label"]["missing"]
    limit = {"metric": metric, "min_better_than_baseline": margin}
    worse = _tolerance(facts["label"], suggestion.task)
    if worse is not None:
        limit["max_worse_than_champion"] = worse
    lines = [f"baseline: {baseline}  # the rule that the model must beat", "gates:"]
    data: dict[str, Any] = {}
    if refused > 0.008:
        data["max_quarantined"] = min(1.0, round(refused * 1.25 + 0.01, 3))
    if data:
        shown = "; ".join(f"{count:,} rows: {reason}" for reason, count in facts["unreadable"].items())
        lines.append(f"  data: {_flow(data)}" + (f"  # {_plain(shown)}" if shown else ""))
    return [*lines, "  quality:  # add a min or max once you know what is good", f"    - {_flow(limit)}"]


def _tolerance(label: Mapping[str, Any], task: str) -> float | None:
    """Returns how much worse than the champion a model may be on the main metric.

    A hundredth of AUC or accuracy. RMSE has the label's unit, so there it is a hundredth of the label's standard
    deviation, which is the RMSE of always predicting the mean.
    """
    if task != "regression":
        return 0.01
    return float(f"{label['deviation'] / 100:.2g}") if label["deviation"] else None


def _name(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:63].rstrip("-")
    return name if re.match(r"[a-z]", name) else f"problem-{name}"[:63].rstrip("-")


def _flow(value: Any) -> str:
    """Returns YAML on one line, fit to stand inside other flow collections."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    # PyYAML breaks the line at a newline inside a string, which no key may have; JSON escapes it, and is YAML too.
    return text.strip()[1:-1] if "\n" not in text.strip() else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    """Returns text that cannot end a comment's line."""
    return " ".join(text.split())


def _comment(text: str) -> list[str]:
    words, lines = _plain(text).split(" "), ["#"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append("#")
        lines[-1] += f" {word}"
    return lines


def _tell(path: Path, source: str, facts: Mapping[str, Any], suggestion: Suggestion, json_output: bool) -> None:
    if json_output:
        print_json(
            {
                "path": str(path),
                "rows": facts["rows"],
                "task": suggestion.task,
                "positive": suggestion.positive,
                "features": {name: dict(settings) for name, (settings, _) in suggestion.features.items()},
                "left_out": dict(suggestion.left_out),
                "sensitive": list(suggestion.sensitive),
                "weight": suggestion.weight,
                "time": suggestion.time,
                "group": suggestion.group,
                "ingest": _detected(facts),
            }
        )
        return
    out.print(f"wrote {path}: {suggestion.task}, {len(suggestion.features)} features", soft_wrap=True)
    _list("detected", (f"{name}: {_flow(value)}" for name, value in _detected(facts).items()))
    _list("left out", (f"{name}: {reason}" for name, reason in suggestion.left_out.items()))
    _list("suspected sensitive, for you to confirm", suggestion.sensitive)
    if scarce := _scarce(facts):
        out.print(scarce, soft_wrap=True)
    command = shlex.join(["tidemill", "run", str(path.parent), "--source", source])
    out.print(f"next: read it, then `{command}`", soft_wrap=True)


def _list(title: str, lines: Iterable[str] | Sequence[str]) -> None:
    lines = list(lines)
    if lines:
        out.print(f"{title}:")
        for line in lines:
            out.print(f"  {line}", soft_wrap=True)
