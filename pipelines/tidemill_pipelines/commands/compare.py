"""``tidemill runs compare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, duration, out, print_json, print_table
from tidemill_pipelines.targets.local.layout import Layout

if TYPE_CHECKING:
    from tidemill_pipelines.comparison import Comparison, Row

_ALWAYS: Final = ("verdict", "started")
_MARKS: Final = {
    "better": ("better", "green"),
    "worse": ("worse", "red"),
    "same": ("within noise", "dim"),
    "": ("", ""),
}
Run = Annotated[str, typer.Argument(help="A run's id, `latest`, or the directory of a run.")]


def compare_runs(first: Run, second: Run, runs_dir: RunsDir = DEFAULT_RUNS_DIR, json_output: Json = False) -> None:
    """Compare two runs: data, settings, metrics, checks, speed and cost. The second is judged by the first.

    A directory may be a copy of a remote run's, from `runs/` below a pipeline root or on the store's volume.

    Examples:

        tidemill runs compare lending-20260101-120000-ab12 latest

        tidemill runs compare lending-20260101-120000-ab12 latest --json | jq .settings
    """
    from tidemill_pipelines.comparison import compare

    layout = Layout(runs_dir)
    found = compare(_directory(layout, first), _directory(layout, second))
    if json_output:
        print_json(_plain(dataclasses.asdict(found)))
    else:
        _show(found)


def _directory(layout: Layout, run: str) -> Path:
    path = Path(run)
    if (path / "run.json").is_file():
        return path.resolve()
    return layout.run_dir(layout.find(run).id)


def _show(found: Comparison) -> None:
    _table(found, "run", [row for row in found.origin if row.differs or row.name in _ALWAYS])
    if any(row.name == "data" and row.differs for row in found.origin):
        out.print("The data differ, and the test rows with them: metrics are those of two tests.\n", style="yellow")
    _table(found, "setting", found.settings, "The settings are the same.")
    measured = [row for row in (*found.metrics, *found.fairness) if row.judgement or row.differs]
    _table(found, "metric", measured, "Neither run got as far as its metrics.")
    if found.checks:
        _table(found, "check", found.checks)
    _table(found, "efficiency", found.efficiency)
    _table(found, "stage", [dataclasses.replace(r, first=_took(r.first), second=_took(r.second)) for r in found.stages])


def _table(found: Comparison, what: str, rows: Sequence[Row], empty: str = "") -> None:
    judged = any(row.judgement for row in rows)
    columns = (what, found.first, found.second, *(("change", "") if judged else ()))
    print_table(columns, (_cells(row, judged) for row in rows), empty)
    if rows or empty:
        out.print()


def _cells(row: Row, judged: bool) -> list[str | Text]:
    cells: list[str | Text] = [row.name, _text(row.first), _text(row.second)]
    if judged:
        word, style = _MARKS[row.judgement]
        cells += [_change(row.first, row.second), Text(word, style)]
    return cells


def _text(value: Any) -> str:
    from tidemill.report.documents import Estimate

    if value is None:
        return "–"
    if isinstance(value, Estimate):
        if value.value is None:
            return "–"
        known = value.low is not None and value.high is not None and value.low < value.high
        return f"{_text(value.value)} [{_text(value.low)}, {_text(value.high)}]" if known else _text(value.value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _change(first: Any, second: Any) -> str:
    from tidemill.report.documents import Estimate

    if isinstance(first, Estimate) and isinstance(second, Estimate):
        first, second = first.value, second.value
        return "" if first is None or second is None else f"{second - first:+.4g}"
    if not isinstance(first, (int, float)) or not isinstance(second, (int, float)) or not first:
        return ""
    return f"{(second / first - 1) * 100:+.0f} %"


def _took(seconds: float | None) -> str:
    return "reused or not reached" if seconds is None else duration(seconds)


def _plain(value: Any) -> Any:
    """Returns a comparison in which estimates are mappings."""
    from tidemill.report.documents import Estimate

    if isinstance(value, Estimate):
        return value.model_dump(include={"value", "low", "high"})
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
