"""A compiled pipeline changes only when somebody meant it to: ``make goldens`` renews what is compared here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import compiler

from tidemill_pipelines.pipelines import PIPELINES, load_pipeline

GOLDENS = Path(__file__).parent / "goldens"


def normalised(compiled: Path) -> str:
    """Returns the IR without what depends on the SDK's version alone."""
    (ir,) = yaml.safe_load_all(compiled.read_text())
    ir.pop("sdkVersion")
    return yaml.safe_dump(ir, sort_keys=True, width=120)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_compiled_pipeline_is_as_its_golden_says(name: str, tmp_path: Path) -> None:
    compiler.Compiler().compile(load_pipeline(name), str(tmp_path / "ir.yaml"))
    golden = GOLDENS / f"{name}.yaml"
    assert normalised(tmp_path / "ir.yaml") == golden.read_text(), "if this was meant: `make goldens`"


def test_compiling_imports_nothing_heavy() -> None:
    heavy = ("tensorflow", "apache_beam", "tensorflow_data_validation", "tensorflow_model_analysis", "pyarrow", "keras")
    code = (
        "import sys\n"
        "from tidemill_pipelines.pipelines import PIPELINES, load_pipeline\n"
        "for name in PIPELINES: load_pipeline(name)\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    for each in PIPELINES:
        raw = GOLDENS / f".{each}.raw.yaml"
        compiler.Compiler().compile(load_pipeline(each), str(raw))
        (GOLDENS / f"{each}.yaml").write_text(normalised(raw))
        raw.unlink()
