"""Kills one or the other of two workers at random moments, time and again, and looks what became of the training.

    python tests/benchmarks/kills.py --kills 20

Run it in the tensorflow environment. Prints each kill, the seed that repeats the choice of victims and moments, and
whether the training ended with the steps, rows, loss and weights of one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

_TEST = Path(__file__).parents[1] / "unit" / "train" / "test_train_kills.py"


class Options:
    """What the test reads in place of its defaults."""

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        parser.addoption("--kills", type=int)
        parser.addoption("--kill-seed", type=int)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, help="by chance if it isn't given")
    given = parser.parse_args()
    seed = [] if given.seed is None else [f"--kill-seed={given.seed}"]
    return int(pytest.main(["-q", str(_TEST), f"--kills={given.kills}", *seed], plugins=[Options()]))


if __name__ == "__main__":
    sys.exit(main())
