"""Keys follow content, and a miss is explained by what is different."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from tidemill.runs import Artifact, TaskRecord
from tidemill_pipelines.targets.local.cache import Cache, Entry, code_digest, digest, explain_miss, key

RECORD = TaskRecord(
    name="ingest",
    environment="tensorflow",
    status="succeeded",
    started="2026-01-01T00:00:00+00:00",
    code="c",
    parameters={"source": "a.csv", "source_fingerprint": "1"},
    inputs={"bundle": Artifact("somewhere", "b")},
)


def test_the_place_of_an_input_does_not_matter_its_content_does() -> None:
    here = key("c", {}, {"bundle": Artifact("here", "same")})
    assert here == key("c", {}, {"bundle": Artifact("there", "same")})
    assert here != key("c", {}, {"bundle": Artifact("here", "other")})


def test_another_image_or_another_command_is_other_code() -> None:
    code = code_digest("tidemill/control:1", ["python"])
    assert code != code_digest("tidemill/control:2", ["python"])
    assert code != code_digest("tidemill/control:1", ["python", "-O"])


def test_an_entry_whose_output_was_altered_or_removed_is_not_found(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "executor_output.json").write_text("{}")
    made = root / "made"
    made.write_text("content")
    cache = Cache(tmp_path / "cache")
    cache.put("k", Entry("run", root, {"made": Artifact(str(made), digest(str(made)))}, {}))
    assert cache.find("k") is not None
    assert cache.find("other") is None
    assert Cache(tmp_path / "cache", only_run="another").find("k") is None
    made.write_text("altered")
    assert cache.find("k") is None
    made.unlink()
    assert cache.find("k") is None


def test_a_miss_names_everything_that_changed() -> None:
    assert "first" in explain_miss(RECORD, None)
    changed = replace(
        RECORD,
        code="d",
        parameters={**RECORD.parameters, "source_fingerprint": "2"},
        inputs={"bundle": Artifact("somewhere", "x")},
    )
    why = explain_miss(changed, RECORD)
    assert why.endswith("the code or its environment, parameter source_fingerprint, input bundle")
    assert "gone" in explain_miss(RECORD, RECORD)


def test_two_runs_that_need_one_result_come_one_after_the_other(tmp_path: Path) -> None:
    here, there = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    came = threading.Event()

    def second() -> None:
        with there.alone("k"):
            came.set()

    with here.alone("k"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not came.wait(0.3), "both made it at once"
        with there.alone("another"):
            pass
    assert came.wait(10)
    thread.join()
