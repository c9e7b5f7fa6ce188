"""The curated schema of a problem, held against what a run's data suggests.

Run in the validation environment; the answer goes to standard output as JSON::

    python -m tidemill.validate.curation diff PROBLEM_DIR RUN_DIR
    python -m tidemill.validate.curation accept PROBLEM_DIR RUN_DIR [--breaking]

    {"path": str, "curated": bool, "written": bool,
     "changes": [{"column": str, "kind": str, "class": "safe" | "breaking", "message": str, "accepted": bool}, …]}

``tidemill.validate.changes`` says what is proposed and what is safe.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.bundle import SCHEMA_FILE
from tidemill.errors import UsageError
from tidemill.files import write_text
from tidemill.problem import load_problem
from tidemill.runs import output, read_tasks
from tidemill.stage import Stage
from tidemill.validate.changes import Evidence, propose
from tidemill.validate.run import STATISTICS, SUMMARY
from tidemill.validate.schema import read_curated, to_text
from tidemill.validate.statistics import read_statistics


def read_evidence(run_dir: Path) -> Evidence:
    """Reads what the run's validation left.

    Raises:
        UsageError: if the run didn't get as far as that, or had no training rows.
    """
    directory = output(read_tasks(run_dir), "validate", "statistics")
    if directory is None:
        raise UsageError(f"run {run_dir.name}", "has no statistics", remedy="give a run that got past `validate`")
    summary = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    statistics = {
        split: read_statistics(directory / split / STATISTICS)
        for split, content in summary["splits"].items()
        if content["rows"]
    }
    if "train" not in statistics:
        raise UsageError(f"run {run_dir.name}", "has no training rows to learn a schema from")
    return Evidence(statistics, {column: known["type"] for column, known in summary["columns"].items()})


def curate(problem_dir: Path, run_dir: Path, write: bool, breaking: bool = False) -> dict[str, Any]:
    """Proposes changes and, if asked to, writes the schema with them.

    Args:
        problem_dir: directory of the problem; its schema.pbtxt is read and replaced.
        run_dir: directory of the run whose data is the evidence.
        write: whether to write.
        breaking: whether breaking changes are to be written as well.

    Returns:
        What the module prints.
    """
    problem = load_problem(problem_dir)
    path = problem_dir / SCHEMA_FILE
    curated = read_curated(path) if path.is_file() else None
    changes = propose(curated, read_evidence(run_dir), problem)
    accepted = [change for change in changes if write and (breaking or change.safety == "safe")]
    if accepted:
        schema = schema_pb2.Schema()
        if curated is not None:
            schema.CopyFrom(curated)
        for change in accepted:
            change.apply(schema)
        write_text(path, to_text(schema))
    return {
        "path": str(path),
        "curated": curated is not None,
        "written": bool(accepted),
        "changes": [
            {
                "column": change.column,
                "kind": change.kind,
                "class": change.safety,
                "message": change.message,
                "accepted": change in accepted,
            }
            for change in changes
        ],
    }


def main(arguments: Sequence[str]) -> None:
    """Answers ``diff`` and ``accept`` on standard output."""
    parser = argparse.ArgumentParser(prog="python -m tidemill.validate.curation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("diff", "accept"):
        command = commands.add_parser(name)
        command.add_argument("problem_dir", type=Path)
        command.add_argument("run_dir", type=Path)
        if name == "accept":
            command.add_argument("--breaking", action="store_true")
    asked = parser.parse_args(arguments)
    with Stage("schema") as stage:
        stage.begin()
        result = curate(asked.problem_dir, asked.run_dir, asked.command == "accept", getattr(asked, "breaking", False))
        print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
