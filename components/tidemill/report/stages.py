"""The tasks of the run: the DAG with states, and what each cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from markupsafe import Markup

from tidemill.costs import Cost, run_cost
from tidemill.report import charts
from tidemill.report.evidence import REPORT_TASK, Evidence
from tidemill.report.formats import duration, plural
from tidemill.report.graph import Layout, layout, ordered, reduced
from tidemill.runs import TaskRecord

_WORDS = {
    "succeeded": "done",
    "cached": "reused",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "running",
    "refused": "refused",
    "skipped": "not reached",
    "page": "this page",
}
_ICONS = {
    "succeeded": "M-4 0l3 3.2 5-6.4",
    "cached": "M4 -2.5a4.6 4.6 0 1 0 .6 3.4M4.6 -4.6v2.6h-2.6",
    "failed": "M-3.5 -3.5l7 7M3.5 -3.5l-7 7",
    "refused": "M-4 0h8",
    "interrupted": "M-2.2 -4v8M2.2 -4v8",
    "running": "M0 -4v4l3 2",
    "skipped": "",
    "page": "M-3.5 -2.5h7M-3.5 .5h7M-3.5 3.5h4",
}
_WORST = ("cached", "succeeded", "running", "interrupted", "failed")
# The picture is drawn three times, for a desktop, a sheet of A4 and a telephone: tasks side by side, width of a box.
SIZES = {"wide": (6, 154.0), "medium": (4, 142.0), "narrow": (2, 142.0)}


@dataclass(frozen=True)
class StageRow:
    """One task for the table. Times in seconds, memory in MB; None where it was not reached."""

    name: str
    environment: str
    state: str
    word: str
    wall_s: float | None
    import_s: float | None
    cpu_s: float | None
    peak_rss_mb: float | None
    cache_reason: str
    bar: Markup
    cost: float | None


@dataclass(frozen=True)
class StagesView:
    """The section on the pipeline."""

    pictures: Sequence[tuple[str, Markup]]
    rows: Sequence[StageRow]
    unreached: Sequence[str]
    wall_s: float | None
    import_s: float
    cpu_s: float
    peak_rss_mb: float
    reused: int
    reached: int
    total: int
    cost: Cost | None


def view(evidence: Evidence) -> StagesView | None:
    """Returns None if not even the names of the tasks are known."""
    if not evidence.edges:
        return None
    edges = reduced(evidence.edges)
    shown = _loops(evidence.tasks)
    tasks = {task.name: task for task in shown}
    starts = [s for task in evidence.tasks if (s := _seconds(task.started)) is not None]
    zero = min(starts, default=0.0)
    total = elapsed(evidence.tasks)
    cost = run_cost(evidence.run, evidence.tasks)
    costs = _costs(evidence.tasks, cost)
    rows = [_row(name, tasks.get(name), zero, total, costs) for name in _in_order(edges, shown)]
    done = [task for task in evidence.tasks if task.status != "cached"]
    return StagesView(
        pictures=[
            (size, _drawn(layout(edges, columns, (width, 46.0)), {r.name: r for r in rows}))
            for size, (columns, width) in SIZES.items()
        ],
        rows=[row for row in rows if row.state != "skipped"],
        unreached=[row.name for row in rows if row.state == "skipped"],
        wall_s=evidence.run.wall_s if evidence.run.wall_s is not None else total or None,
        import_s=sum(task.import_s for task in done),
        cpu_s=sum(task.cpu_s for task in done),
        peak_rss_mb=max((task.peak_rss_mb for task in evidence.tasks), default=0.0),
        reused=sum(task.status == "cached" for task in shown),
        reached=len(tasks),
        total=sum(name != REPORT_TASK for name in edges),
        cost=cost,
    )


def _loops(tasks: Sequence[TaskRecord]) -> list[TaskRecord]:
    """Returns the tasks with one record for all runs of a task that is run for each item of a list."""
    found: dict[str, list[TaskRecord]] = {}
    for task in tasks:
        found.setdefault(task.iteration_of or task.name, []).append(task)
    return [_loop(name, parts) if parts[0].iteration_of else parts[0] for name, parts in found.items()]


def _loop(name: str, parts: Sequence[TaskRecord]) -> TaskRecord:
    reused = sum(part.status == "cached" for part in parts)
    worst = max(parts, key=lambda part: _WORST.index(part.status))
    return replace(
        worst,
        name=name,
        started=min(part.started for part in parts),
        wall_s=elapsed(parts),
        import_s=sum(part.import_s for part in parts),
        cpu_s=sum(part.cpu_s for part in parts),
        peak_rss_mb=max(part.peak_rss_mb for part in parts),
        cache_reason=f"{plural(len(parts), 'run')} of it, {reused} of them reused",
    )


def _costs(tasks: Sequence[TaskRecord], cost: Cost | None) -> dict[str, float]:
    costs: dict[str, float] = {}
    for task in tasks:
        if cost and task.name in cost.tasks:
            name = task.iteration_of or task.name
            costs[name] = costs.get(name, 0.0) + cost.tasks[task.name]
    return costs


def elapsed(tasks: Sequence[TaskRecord]) -> float:
    """Returns the seconds from the first task's start to the last one's end; 0 without tasks."""
    spans = [(start, start + task.wall_s) for task in tasks if (start := _seconds(task.started)) is not None]
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0.0


def state_of(task: TaskRecord | None) -> str:
    """Returns the state as shown: a gate's no is a refusal, not a failure."""
    if task is None:
        return "skipped"
    if task.status == "failed" and task.exit_code == 3:
        return "refused"
    return task.status


def _in_order(edges: dict[str, tuple[str, ...]], tasks: Sequence[TaskRecord]) -> list[str]:
    """Tasks in the order in which they ran; those that were not reached follow in the order of the pipeline."""
    ran = [task.name for task in tasks]
    return [*ran, *(name for name in ordered(edges) if name not in ran)]


def _row(name: str, task: TaskRecord | None, zero: float, total: float, costs: Mapping[str, float]) -> StageRow:
    state = "page" if name == REPORT_TASK else state_of(task)
    if task is None:
        return StageRow(name, "", state, _WORDS[state], None, None, None, None, "", Markup(""), None)
    start = (_seconds(task.started) or zero) - zero
    bar = charts.timeline(start, task.wall_s, total)
    return StageRow(
        name, task.environment, state, _WORDS[state], task.wall_s, task.import_s, task.cpu_s, task.peak_rss_mb,
        task.cache_reason, bar, costs.get(name),
    )  # fmt: skip


def _seconds(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def is_gate(name: str) -> bool:
    """Tells whether a task is a gate, by the names that pipelines give them."""
    return name.endswith("-gate") or name == "gate"


def _drawn(placed: Layout, rows: dict[str, StageRow]) -> Markup:
    parts = [Markup('<path class="g-edge" d="{}"/>').format("".join(placed.paths))]
    for name, slot in placed.slots.items():
        row = rows[name]
        radius = 23 if is_gate(name) else 7
        under = row.word if row.wall_s is None or row.state in ("cached", "refused", "page") else duration(row.wall_s)
        fits = max(int((slot.width - 34) / 6.4), 4)
        text = name if len(name) <= fits else f"{name[: fits - 1]}…"
        parts.append(
            Markup(
                '<g class="g-node {}" transform="translate({:.1f} {:.1f})"><title>{}: {}</title>'
                '<rect width="{:.1f}" height="{:.1f}" rx="{}"/>'
                '<g transform="translate(16 {:.1f})"><circle r="8"/><path d="{}"/></g>'
                '<text class="g-name" x="30" y="19">{}</text><text class="g-time" x="30" y="35">{}</text></g>'
            ).format(
                row.state,
                slot.x,
                slot.y,
                name,
                row.word,
                slot.width,
                slot.height,
                radius,
                slot.height / 2,
                _ICONS[row.state],
                text,
                under,
            )
        )
    told = "; ".join(f"{row.name} {row.word}" for row in rows.values())
    return Markup(
        '<svg class="graph" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="{}">{}</svg>'
    ).format(placed.width, placed.height, placed.width, f"The pipeline's tasks: {told}", Markup("").join(parts))
