"""``python -m tidemill.report RUN_DIR PAGE``: writes the page of an old run again."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidemill.report.run import run


def main() -> None:
    """Writes the page and says what it tells."""
    parser = argparse.ArgumentParser(prog="python -m tidemill.report", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="directory of the run, the one that holds run.json")
    parser.add_argument("page", type=Path, help="HTML file to write")
    arguments = parser.parse_args()
    if not arguments.run_dir.is_dir():
        parser.error(f"{arguments.run_dir} is not a directory")
    summary = run(arguments.run_dir, arguments.page)
    print(f"{arguments.page}: {summary.verdict}, {summary.bytes} bytes, sections {', '.join(summary.sections)}")


if __name__ == "__main__":
    main()
