"""``tidemill compile`` and ``tidemill check``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from tidemill.errors import ProblemError, UsageError
from tidemill_pipelines.targets.compilation import Compiled, Package

Invoke = Callable[..., Result]
Example = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def compiled_file(package: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "lending.yaml"
    path.write_text(package.package.text)
    return path


@pytest.mark.parametrize("kind", ["vertex", "kubernetes"])
def test_a_file_is_written_in_place_of_the_old_one(
    kind: str, invoke: Invoke, example: Example, images_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "lending.yaml"
    told = invoke("compile", *example[kind], "--images", str(images_file), "-o", str(output))
    package = Package.read(output)
    assert told.exit_code == 0
    assert told.stderr == ""
    assert told.stdout == f"{output}: lending-training for {kind}, sha256 {package.digest}\n"
    assert package.defaults["source"] == "gs://example-bucket/loans.csv"
    inode = output.stat().st_ino
    invoke("compile", *example[kind], "--images", str(images_file), "-o", str(output))
    assert output.stat().st_ino != inode  # replaced, not written over: a reader sees the old one or the new
    assert Package.read(output) == package
    assert [path.name for path in output.parent.iterdir()] == ["lending.yaml"]


def test_a_directory_is_no_file_to_write_to(invoke: Invoke, example: Example, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a file"):
        invoke("compile", *example["vertex"], "-o", str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_stdout_holds_the_pipeline_alone(invoke: Invoke, example: Example, tmp_path: Path) -> None:
    told = invoke("compile", *example["vertex"], "-o", "-")
    assert yaml.safe_load(told.stdout)["pipelineInfo"]["name"] == "lending-training"
    assert "[image-not-pinned]" in told.stderr
    assert told.exit_code == 0
    with pytest.raises(UsageError, match="stdout can't hold"):
        invoke("compile", *example["vertex"], "-o", "-", "--json")


def test_what_is_no_file_is_written_to_and_not_replaced(invoke: Invoke, example: Example) -> None:
    invoke("compile", *example["vertex"], "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_programs_are_told_the_digest_the_uploads_and_the_findings(
    invoke: Invoke, example: Example, read_json: Callable[[Result], Any], tmp_path: Path
) -> None:
    output = tmp_path / "lending.yaml"
    facts = read_json(invoke("compile", *example["vertex"], "-o", str(output), "--json"))
    assert (facts["pipeline"], facts["target"], facts["file"]) == ("lending-training", "vertex", str(output))
    assert facts["digest"] == Package.read(output).digest
    assert all(address.startswith("gs://example-bucket/tidemill/bundles/") for address in facts["uploads"])
    assert len(facts["uploads"]) == 4
    assert {finding["id"] for finding in facts["findings"]} == {"image-not-pinned"}
    assert facts["counts"] == {"error": 0, "warning": 14, "note": 0}


def test_values_of_the_problem_can_be_overridden(
    invoke: Invoke, example: Example, read_json: Callable[[Result], Any], tmp_path: Path
) -> None:
    def digest(*more: str) -> str:
        return read_json(invoke("compile", *example["vertex"], "-o", str(tmp_path / "p.yaml"), "--json", *more))[
            "digest"
        ]

    assert digest() != digest("--set", "training.max_epochs=5")
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        digest("--set", "training.max_epochs")
    with pytest.raises(ProblemError, match="max_epoch"):
        digest("--set", "training.max_epoch=5")


def test_what_cannot_be_compiled_is_told(invoke: Invoke, example: Example, tmp_path: Path) -> None:
    directory, *rest = example["vertex"]
    output = ("-o", str(tmp_path / "p.yaml"))
    with pytest.raises(UsageError, match="pipeline trainig: expected one of training"):
        invoke("compile", *example["vertex"], *output, "--pipeline", "trainig")
    with pytest.raises(UsageError, match=r"--target prod: expected targets/prod.yaml"):
        invoke("compile", directory, "--target", "prod", *output)
    with pytest.raises(UsageError, match=r"names no `ingest\.source`"):
        invoke("compile", directory, *rest[2:], *output)
    with pytest.raises(UsageError, match=r"expected the images.json"):
        invoke("compile", *example["vertex"], *output, "--images", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="expected a target of kind kubernetes"):
        invoke("compile", *example["vertex"], *output, "--manifests")
    assert invoke("compile", str(tmp_path / "none"), *rest, *output).exit_code == 2
    assert not (tmp_path / "p.yaml").exists()


def test_manifests_for_kubectl(invoke: Invoke, example: Example, tmp_path: Path) -> None:
    output = tmp_path / "manifests.yaml"
    invoke("compile", *example["kubernetes"], "-o", str(output), "--manifests")
    kinds = [document["kind"] for document in yaml.safe_load_all(output.read_text())]
    assert kinds == ["Pipeline", "PipelineVersion"]


def test_a_clean_file_is_checked_with_exit_code_0(
    invoke: Invoke, compiled_file: Path, on_vertex: tuple[str, str], images_file: Path
) -> None:
    told = invoke("check", str(compiled_file), *on_vertex, "--images", str(images_file))
    assert (told.exit_code, told.stdout) == (0, "nothing found: the backend takes it as it is\n")


def test_errors_end_with_exit_code_4(
    invoke: Invoke, compiled_file: Path, read_json: Callable[[Result], Any], on_vertex: tuple[str, str]
) -> None:
    told = invoke("check", str(compiled_file), "--target", "vertex")
    assert told.exit_code == 4
    assert "error the target has no `pipeline_root` [root-missing]\n  → set it to gs://…" in told.stdout
    assert told.stdout.splitlines()[-1] == "2 errors, 1 warning"
    facts = read_json(invoke("check", str(compiled_file), "--target", "vertex", "--json"))
    assert facts["counts"] == {"error": 2, "warning": 1, "note": 0}
    assert facts["findings"][0].keys() == {"id", "severity", "task", "what", "cure"}


def test_warnings_do_not_fail_and_tasks_with_the_same_fault_are_told_together(
    invoke: Invoke, compiled_file: Path, tmp_path: Path, on_vertex: tuple[str, str]
) -> None:
    tagged = tmp_path / "tagged.yaml"
    tagged.write_text(compiled_file.read_text().replace(f"@sha256:{'0' * 64}", ":latest"))
    told = invoke("check", str(tagged), *on_vertex)
    lines = told.stdout.splitlines()
    assert told.exit_code == 0
    assert lines[0].startswith("warning deploy, find-champion, data-gate, ")
    assert "the image registry.example.com/tidemill/control:latest has the moving tag latest" in lines[0]
    assert lines[1] == "  → compile with `--images images.json`, which `make images` writes"
    assert len(lines) == 4 * 2 + 1
    assert lines[-1] == "14 warnings"


def test_a_schedule_is_checked_too(invoke: Invoke, compiled_file: Path, on_vertex: tuple[str, str]) -> None:
    told = invoke("check", str(compiled_file), *on_vertex, "--cron", "0 0 3 * * 1", "--time-zone", "Europe/Berlim")
    assert told.exit_code == 4
    assert "[cron-seconds-first]\n  → leave out the seconds: '0 3 * * 1'" in told.stdout
    assert "[time-zone-unknown]" in told.stdout


def test_what_is_no_pipeline_cannot_be_checked(invoke: Invoke, tmp_path: Path, on_vertex: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        invoke("check", str(tmp_path / "none.yaml"), *on_vertex)
    other = tmp_path / "other.yaml"
    other.write_text("kind: vertex\n")
    with pytest.raises(UsageError, match=r"expected a compiled pipeline\n  → `tidemill compile` makes one"):
        invoke("check", str(other), *on_vertex)


@pytest.mark.parametrize(("kind", "title"), [("problem", "tidemill problem.yaml"), ("target", "tidemill target")])
def test_the_schemas_of_files_are_printed(kind: str, title: str, invoke: Invoke) -> None:
    schema = json.loads(invoke("schema", "json", kind).stdout)
    assert (schema["title"], schema["type"]) == (title, "object")
