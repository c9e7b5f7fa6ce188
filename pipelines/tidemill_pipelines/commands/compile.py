"""``tidemill compile``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidemill.errors import UsageError
from tidemill.files import write_text
from tidemill_pipelines.commands import check
from tidemill_pipelines.commands.options import (
    Images,
    Overrides,
    PipelineName,
    ProblemDir,
    Source,
    TargetName,
    assignments,
)
from tidemill_pipelines.console import Json, err, out, print_json


def compile_problem(
    problem_dir: ProblemDir,
    target: TargetName,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where it goes; - is stdout.")],
    pipeline: PipelineName = "training",
    images: Images = None,
    source: Source = None,
    overrides: Overrides = None,
    manifests: Annotated[
        bool, typer.Option("--manifests", help="Write Pipeline and PipelineVersion for kubectl instead.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Compile a pipeline for a problem and a target, so that it runs there as it is.

    The file depends on the problem and the target alone: it is the same, byte by byte, wherever it is compiled. What
    `tidemill check` finds in it is told on stderr, and doesn't keep it from being written.

    Exit codes: 0 written, 4 bad input: the problem, the target's file or the images.

    Examples:

        tidemill compile pipelines/problems/lending --target production --images images.json -o lending.yaml

        tidemill compile my-problem --target vertex --source gs://example-bucket/loans.csv -o - | less

        tidemill compile my-problem --target cluster --manifests -o manifests/my-problem.yaml
    """
    from tidemill_pipelines.targets.checking.subject import Subject
    from tidemill_pipelines.targets.compilation import ImagesFile, compile_package
    from tidemill_pipelines.targets.config import load_target
    from tidemill_pipelines.targets.sdk import import_sdk

    to_stdout = str(output) == "-"
    if to_stdout and json_output:
        raise UsageError("--json", "stdout can't hold the pipeline and a report", remedy="give a file with -o")
    config = load_target(target)
    if manifests and config.kind != "kubernetes":
        raise UsageError("--manifests", "expected a target of kind kubernetes", config.kind)
    given = ImagesFile.read(images) if images else None
    import_sdk()
    compiled = compile_package(
        problem_dir, pipeline, config, given, assignments("--set", overrides, "training.max_epochs=5"), source
    )
    text = compiled.package.text
    if manifests:
        from tidemill_pipelines.targets.kubernetes.manifests import manifests as as_manifests

        text = as_manifests(compiled.package, config.on_kubernetes.namespace)
    _write(text, output)
    found = check.look(Subject(compiled.package, config, given))
    if json_output:
        facts = {"pipeline": compiled.package.name, "target": config.kind, "digest": compiled.package.digest}
        print_json({**facts, "uploads": sorted(compiled.files), **check.as_json(str(output), found)})
        return
    check.show(found, err)
    if not to_stdout:
        out.print(
            f"{output}: {compiled.package.name} for {config.kind}, sha256 {compiled.package.digest}", soft_wrap=True
        )


def _write(text: str, output: Path) -> None:
    if output.is_dir():
        raise UsageError(f"-o {output}", "expected a file", "a directory")
    if str(output) == "-":
        sys.stdout.write(text)
    elif output.exists() and not output.is_file():  # /dev/stdout, a pipe: there is nothing to replace
        output.write_text(text, encoding="utf-8")
    else:
        write_text(output, text)
