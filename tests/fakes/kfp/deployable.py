"""A small pipeline for a cluster: two tasks, parameters, caching, and a platform spec as second document."""

import tempfile
from pathlib import Path

from tidemill_pipelines.targets.compilation import Package


def compiled(name: str = "lending", greeting: str = "hello") -> Package:
    """Returns the compiled pipeline; another greeting makes another package of the same name."""
    from kfp import compiler, dsl, kubernetes

    from tidemill.images import CONTROL

    @dsl.component(base_image=CONTROL, install_kfp_package=False)
    def ingest(source: str, rows: int) -> str:
        return f"{source} {rows}"

    @dsl.component(base_image=CONTROL, install_kfp_package=False)
    def train(examples: str, model: dsl.Output[dsl.Model]):
        Path(model.path).write_text(examples)

    @dsl.pipeline(name=name)
    def pipeline(source: str, rows: int = 10, deep: bool = False, greeting: str = greeting):
        examples = ingest(source=source, rows=rows)
        kubernetes.mount_pvc(examples, "tidemill-store", "/tidemill")
        train(examples=examples.output).set_caching_options(False)

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        return Package(file.read_text())
