"""Pipelines of toys with loops over a list that a task puts out, whose results the next task gets as a list."""

from typing import List  # noqa: UP035 - KFP's notation for a list of artefacts

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def propose(
    texts: list,
    study: dsl.Output[dsl.Artifact],
    before: dsl.Input[dsl.Artifact] = None,  # type: ignore[assignment]
    results: dsl.Input[List[dsl.Artifact]] = None,  # type: ignore[assignment]  # noqa: UP006
) -> List[str]:  # noqa: UP006
    """Puts out an item per text, and a study of all results so far."""
    import json
    from pathlib import Path

    from tidemill.stage import Stage

    with Stage("propose"):
        told = Path(before.path).read_text() if before else ""
        Path(study.path).write_text(told + "".join(Path(result.path).read_text() for result in results or []))
    return [json.dumps({"key": text, "text": text}) for text in texts]


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def attempt(item: str, study: dsl.Input[dsl.Artifact], result: dsl.Output[dsl.Artifact]):
    """Writes its text in capitals; waits for another to run beside it, fails or is killed as the text says."""
    import json
    import os
    import signal
    import time
    from pathlib import Path

    from tidemill.errors import DataError
    from tidemill.stage import Stage

    with Stage("attempt"):
        text = json.loads(item)["text"]
        marks = Path(os.environ["TOY_MARKS"])
        marks.mkdir(exist_ok=True)
        (marks / text).write_text("ran")
        deadline = time.monotonic() + 60
        while text.startswith("meet") and len(list(marks.glob("meet*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        if text == "sleep":
            (marks / "asleep").write_text("")
            time.sleep(120)
        if text == "faulty":
            raise DataError("toy", "expected better", text)
        if text == "killed" and not (marks / "once").exists():
            (marks / "once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        Path(result.path).write_text(f"{text.upper()} {time.monotonic() < deadline};")


@dsl.pipeline(name="loops")
def loops(first: list, second: list):
    proposed = propose(texts=first).set_display_name("propose-1")
    with dsl.ParallelFor(items=proposed.outputs["Output"], parallelism=3, name="round-1") as item:
        tried = attempt(item=item, study=proposed.outputs["study"]).set_display_name("round-1")
    again = propose(
        texts=second, before=proposed.outputs["study"], results=dsl.Collected(tried.outputs["result"])
    ).set_display_name("propose-2")
    with dsl.ParallelFor(items=again.outputs["Output"], parallelism=1, name="round-2") as item:
        retried = attempt(item=item, study=again.outputs["study"]).set_display_name("round-2")
    propose(
        texts=second, before=again.outputs["study"], results=dsl.Collected(retried.outputs["result"])
    ).set_display_name("end")
