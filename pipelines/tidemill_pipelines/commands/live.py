"""The view of a run while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tidemill.runs import RunRecord, TaskRecord
from tidemill_pipelines.console import duration

_MARKS = {"succeeded": ("✓", "green"), "cached": ("↺", "cyan"), "failed": ("✗", "red"), "interrupted": ("✗", "yellow")}


class RunView:
    """Shows the stages of one run.

    Args:
        console: where to show them.
        quiet: shows nothing: for ``--json``.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._stages: tuple[str, ...] = ()
        self._records: dict[str, TaskRecord] = {}
        self._begun: dict[str, float] = {}
        self._spinner = Spinner("dots", style="blue")
        live = console.is_terminal and not quiet
        self._live = Live(self, console=console, refresh_per_second=8, transient=False) if live else None

    def __enter__(self) -> RunView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def planned(self, run: RunRecord) -> None:
        self._stages = tuple(run.stages)
        if not self._quiet:
            told = Text.assemble("run ", (run.id, "bold"), f": {run.problem} from {run.source}")
            self._console.print(told, soft_wrap=True)
        if self._live:
            self._live.start()

    def task(self, record: TaskRecord) -> None:
        if record.iteration_of is not None and record.name not in self._stages:
            self._stages = _beside(self._stages, record.name, record.iteration_of)
        self._records[record.name] = record
        self._begun.setdefault(record.name, time.monotonic())
        if not self._live and not self._quiet:
            if record.status == "running":
                self._console.print(f"{record.name}: started")
            else:
                self._console.print(f"{record.name}: {record.status} in {duration(record.wall_s)}")

    def __rich__(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(width=1)
        table.add_column(min_width=16)
        table.add_column(justify="right", min_width=9)
        table.add_column(style="dim")
        failed = any(record.status == "failed" for record in self._records.values())
        for stage in self._stages:
            record = self._records.get(stage)
            if record is None:
                table.add_row("·", Text(stage, style="dim"), "", "not reached" if failed else "")
            elif record.status == "running":
                elapsed = time.monotonic() - self._begun[stage]
                table.add_row(self._spinner, Text(stage, style="bold"), duration(elapsed), "")
            else:
                mark, style = _MARKS[record.status]
                table.add_row(Text(mark, style=style), stage, duration(record.wall_s), _note(record))
        return table


def _beside(stages: tuple[str, ...], name: str, loop: str) -> tuple[str, ...]:
    """Returns the stages with one of a loop's runs after those before it, in the place of the loop itself."""
    place = max(i for i, stage in enumerate(stages) if stage == loop or stage.startswith(f"{loop}-"))
    return (*(s for s in stages[: place + 1] if s != loop), name, *stages[place + 1 :])


def _note(record: TaskRecord) -> str:
    if record.status == "cached":
        return f"reused from {record.reused_from}"
    return f"{record.cpu_s:.1f} s CPU, {record.peak_rss_mb:.0f} MB" if record.peak_rss_mb else ""
