"""A pipeline of toys that exercises what the local target must get right."""

from kfp import dsl

from tidemill.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def make(text: str, made: dsl.Output[dsl.Artifact]) -> int:
    """Writes its parameter, and leaves a mark each time that it really runs."""
    import os
    from pathlib import Path

    from tidemill.stage import Stage

    with Stage("make"):
        Path(made.path).write_text(text)
        made.metadata["length"] = len(text)
        with Path(os.environ["TOY_MARKS"]).open("a") as marks:
            marks.write("make\n")
    return len(text)


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def judge(made: dsl.Input[dsl.Artifact], judged: dsl.Output[dsl.Artifact]):
    """Ends as the text says."""
    import os
    import signal
    from pathlib import Path

    from tidemill.errors import DataError, GateRefused, PlatformError
    from tidemill.stage import Stage

    with Stage("judge") as stage:
        stage.scratch(judged.path)
        text = Path(made.path).read_text()
        assert made.metadata["length"] == len(text)
        if text == "refuse":
            raise GateRefused("toy gate", "no", "refuse")
        if text == "faulty":
            raise DataError("toy data", "expected better", text, "give better")
        if text == "platform":
            raise PlatformError("toy disk", "is full")
        if text == "defect":
            raise ValueError("unexpected")
        if text == "once-killed" and not Path(os.environ["TOY_MARKS"]).with_suffix(".killed").exists():
            Path(os.environ["TOY_MARKS"]).with_suffix(".killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        Path(judged.path).write_text(text.upper())


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def long_enough(length: int):
    """Runs only behind its condition."""
    from tidemill.stage import Stage

    with Stage("long_enough"):
        print(f"{length} is long enough")


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def last(status: dsl.PipelineTaskFinalStatus):
    """Runs however the rest ended."""
    from tidemill.stage import Stage

    with Stage("last"):
        print(f"the end: {status.state}")


@dsl.pipeline(name="toy")
def toy(text: str):
    final = last()
    final.set_caching_options(False)
    with dsl.ExitHandler(final, name="body"):
        made = make(text=text)
        judge(made=made.outputs["made"]).set_display_name("judge-it")
        with dsl.If(made.outputs["Output"] > 6, name="if-long"):
            long_enough(length=made.outputs["Output"])
