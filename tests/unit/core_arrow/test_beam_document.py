"""The flags that the page on Beam shows are flags that Beam takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

pytest.importorskip("apache_beam", reason="the environment has no Beam")

from tidemill.beam import pipeline_options

PAGE = (Path(__file__).parents[3] / "pipelines" / "targets" / "BEAM.md").read_text()
SETTINGS = [yaml.safe_load(block)["beam"] for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
COMMANDS = [shlex.split(block) for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]
# What the target adds, so that the SDK's validator has nothing to miss.
DATAFLOW = ["--project=example-project", "--region=europe-west1", "--temp_location=gs://example-bucket/temp"]


@pytest.mark.parametrize("beam", SETTINGS, ids=lambda beam: beam["runner"])
def test_settings_are_taken(beam):
    pipeline_options(beam["runner"], [*(DATAFLOW if beam["runner"] == "dataflow" else []), *beam["flags"]])


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[words.index("--beam-runner") + 1])
def test_commands_are_taken(words):
    flags = [word.removeprefix("--beam-flag=") for word in words if word.startswith("--beam-flag=")]
    pipeline_options(words[words.index("--beam-runner") + 1], flags)


def test_flags_named_in_passing_exist():
    named = set(re.findall(r"`(--[a-z_]+)=", PAGE)) - {"--service_port"}
    known = pipeline_options("direct").get_all_options()
    assert named
    assert not [flag for flag in named if flag.removeprefix("--") not in known]
