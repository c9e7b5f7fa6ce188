"""The page tells a run's verdict and its reasons, whatever is left of the run, and nothing can break out of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tidemill.files import write_json
from tidemill.report import documents, evidence, verdict
from tidemill.report.data import rebinned
from tidemill.report.documents import Histogram
from tidemill.report.run import ReportSummary, run

VOID = {"meta", "br", "link", "img", "input", "hr"}
SECTIONS = ("verdict", "pipeline", "data", "learning", "metrics", "slices", "rehearsal", "lineage")


class Outline(HTMLParser):
    """Checks that tags nest and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"{tag} is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sound(text: str) -> Outline:
    """Parses a page and checks what holds for every page."""
    outline = Outline(text)
    assert outline.faults == []
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith("#") and link[1:] in outline.ids for link in outline.links)
    assert not {"script", "iframe", "object", "embed", "img", "link", "form"} & set(outline.tags)
    assert "@import" not in text
    assert "url(" not in text
    assert not any(name.startswith("on") for _, name, _ in outline.attributes)
    assert text.count("<h1") == text.count("<main") == 1
    return outline


Pages = Callable[[Path], str]


def test_a_released_run_shows_every_section_and_how_to_ask_the_endpoint(released: Path, page: Pages) -> None:
    text = page(released)
    outline = sound(text)
    assert set(SECTIONS) <= set(outline.ids)
    assert "Released lending version 3 passed all 15 checks that decide and answers requests." in outline.text
    assert "curl -s http://127.0.0.1:8501/v1/models/lending:predict" in outline.text
    assert "The weights of epoch 9 were kept." in outline.text
    assert '"probability": 0.0713' in outline.text
    assert "0.860 to 0.882" in outline.text


def test_the_report_task_runs_while_the_run_does_and_still_knows_its_verdict(released: Path, tmp_path: Path) -> None:
    assert json.loads((released / "run.json").read_text())["verdict"] == "running"
    summary = run(released, tmp_path / "page.html")
    assert summary == ReportSummary("released", SECTIONS, (), (tmp_path / "page.html").stat().st_size)


def test_a_refused_run_names_the_failed_checks_with_limit_value_and_slice(refused: Path, page: Pages) -> None:
    outline = sound(page(refused))
    assert "The model gate refused lending: 2 of 7 checks failed. It was not released." in outline.text
    reasons = outline.text.split("Why", 1)[1].split("Next", 1)[0]
    for part in ("AUC", "origin C", "0.741 [0.62, 0.85]", "≥ 0.75", "Equal opportunity gap over sex", "≤ 0.1"):
        assert part in reasons
    assert "What went wrong" not in outline.text  # the gate's own error would only say it again
    assert "not reached" in outline.text
    assert "rehearsal" not in outline.ids


def test_a_limit_that_names_a_rule_sets_it_as_code(released: Path, page: Pages) -> None:
    text = page(released)
    assert "better than the rule <code>majority</code>" in text
    assert "`" not in sound(text).text


def test_a_refusal_by_the_data_gate_says_how_to_change_the_schema(builder: Any, page: Pages, upto: Any) -> None:
    upto(builder.run(), "data-gate", refused="data-gate")
    outline = sound(page(builder.run_dir))
    assert "The data gate refused lending: 1 of 4 checks failed." in outline.text
    assert "tidemill schema diff problems/lending lending-20250301-101500" in outline.text


def test_a_refusal_by_the_serving_gate_warns_against_moving_limits(
    builder: Any, page: Pages, upto: Any, edit: Any
) -> None:
    upto(builder.run(), "serving-gate", refused="serving-gate")
    path = builder.artifacts / "rehearse" / "rehearsal" / "rehearsal.json"
    edit(path, lambda d: (d["decision"]["checks"][2].update(passed=False), d)[1])
    outline = sound(page(builder.run_dir))
    assert "The serving gate refused lending" in outline.text
    assert "move no limit" in outline.text


def test_bad_input_shows_the_error_in_its_parts_and_the_command_to_run_again(bad_input: Path, page: Pages) -> None:
    outline = sound(page(bad_input))
    for part in (
        "Bad input",
        "What went wrong in ingest",
        "needs the label column 'default'",
        "columns age, income, purpose",
        "name the label in problem.yaml under label.column",
        "tidemill run problems/lending --source data/lending.csv --set training.max_epochs=12",
    ):
        assert part in outline.text
    assert not {"data", "metrics", "rehearsal"} & set(outline.ids)


@pytest.mark.parametrize(
    ("status", "exit_code", "title"),
    [("failed", 5, "Platform failure"), ("failed", 1, "Failed"), ("interrupted", 130, "Interrupted")],
)
def test_a_run_that_broke_off_says_how_to_go_on(
    builder: Any, page: Pages, status: str, exit_code: int, title: str
) -> None:
    error = {"type": "E", "where": "train", "expected": "the system refused", "got": "No space left", "remedy": None}
    builder.run().task("ingest").task("train", status=status, exit_code=exit_code, error=error)
    outline = sound(page(builder.run_dir))
    assert f"{title} " in outline.text
    assert ("--resume lending-20250301-101500" in outline.text) == (exit_code != 1)
    assert ("No space left" in outline.text) == (status == "failed")
    assert ("logs/train.log" in outline.text) == (exit_code == 1)


def test_a_run_in_which_a_task_still_runs_is_running(builder: Any, page: Pages) -> None:
    builder.run().task("ingest").task("validate", status="running", exit_code=None)
    assert "Running The run has not ended" in sound(page(builder.run_dir)).text


def test_a_run_without_a_deploy_task_is_completed(builder: Any, page: Pages) -> None:
    builder.run(pipeline="monitoring").task("ingest")
    assert "Completed All tasks" in sound(page(builder.run_dir)).text


def test_the_verdict_of_an_ended_run_is_taken_from_its_record(builder: Any, tmp_path: Path) -> None:
    builder.run(verdict="interrupted").task("ingest")
    assert run(builder.run_dir, tmp_path / "page.html").verdict == "interrupted"


def test_every_verdict_has_a_title() -> None:
    from typing import get_args

    from tidemill.runs import Verdict

    assert set(verdict.TITLES) == set(get_args(Verdict))


def test_the_same_run_gives_the_same_bytes(released: Path, page: Pages) -> None:
    assert page(released) == page(released)


def test_an_empty_directory_still_gives_a_page_that_says_what_is_missing(tmp_path: Path, page: Pages) -> None:
    (tmp_path / "empty").mkdir()
    outline = sound(page(tmp_path / "empty"))
    assert "run.json" in outline.text
    assert "is missing" in outline.text


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"metrics": 7, "decision": 3, "rows": [], "splits": 1, "epochs": {}}']
)
def test_a_malformed_document_is_noted_and_the_verdict_stands(released: Path, page: Pages, damage: str) -> None:
    """One document after another is damaged: the page shows a note and the verdict each time."""
    for path in sorted(released.parent.parent.glob("artifacts/**/*.json")):
        if path.name == "features.json":
            continue
        before = path.read_text(encoding="utf-8")
        path.write_text(damage, encoding="utf-8")
        outline = sound(page(released))
        path.write_text(before, encoding="utf-8")
        assert outline.text.count("Released"), path
        if damage != '{"metrics": 7, "decision": 3, "rows": [], "splits": 1, "epochs": {}}':
            assert f": {path.name}" in outline.text, path


@pytest.mark.parametrize("name", ["manifest.json", "summary.json", "metrics.json", "rehearsal.json", "history.json"])
def test_a_missing_artefact_hides_its_section_without_a_note(released: Path, page: Pages, name: str) -> None:
    for path in released.parent.parent.glob(f"artifacts/**/{name}"):
        path.unlink()
    outline = sound(page(released))
    assert "Not readable" not in outline.text
    assert "Released" in outline.text


def test_a_malformed_task_or_run_record_is_noted(released: Path, page: Pages) -> None:
    (released / "tasks" / "train.json").write_text('{"name": "train"}', encoding="utf-8")
    (released / "run.json").write_text("{}", encoding="utf-8")
    outline = sound(page(released))
    assert "tasks/train.json" in outline.text
    assert "lacks" in outline.text
    assert "Released" in outline.text


def test_a_pipeline_that_cannot_be_read_leaves_the_order_of_the_stages(builder: Any, page: Pages) -> None:
    builder.run().task("ingest").pipeline("root: [")
    outline = sound(page(builder.run_dir))
    assert "pipeline.yaml" in outline.text
    assert "serving-gate" in outline.text


def test_every_optional_part_may_be_left_out(released: Path, page: Pages) -> None:
    """Removes the keys of each document one by one: what is left never breaks the page."""
    for path in sorted(released.parent.parent.glob("artifacts/**/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for key in document:
            write_json(path, {k: v for k, v in document.items() if k != key})
            assert "Released" in sound(page(released)).text
        write_json(path, document)


EVIL = (
    '<script>alert("x")</script>',
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title></svg>",
    "&amp;lt; \u202e right-to-left \u05d0\u05d1 \U0001f680",
    "javascript:alert(1)",
    "x" * 5000,
)


def _replaced(value: Any, evil: str) -> Any:
    """Puts the evil string in the place of every string and key that a stage or a user may choose."""
    if isinstance(value, dict):
        fixed = {"train", "eval", "test", "rate", "severity"}
        return {
            (f"{k}{evil}" if k in CHOSEN else k): v if k in fixed and isinstance(v, str) else _replaced(v, evil)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_replaced(item, evil) for item in value]
    return evil if isinstance(value, str) else value


CHOSEN = {"age", "income", "purpose", "region", "sex", "origin", "repaid", "defaulted", "auc", "accuracy"}


@pytest.mark.parametrize("evil", EVIL)
def test_nothing_breaks_out_of_the_page(released: Path, page: Pages, evil: str) -> None:
    for path in released.parent.parent.glob("artifacts/**/*.json"):
        write_json(path, _replaced(json.loads(path.read_text(encoding="utf-8")), evil))
    record = json.loads((released / "run.json").read_text(encoding="utf-8"))
    for key in ("problem", "source", "bundle", "pipeline"):
        record[key] = evil
    record["environment"] = {evil: evil}
    write_json(released / "run.json", record)
    text = page(released)
    outline = sound(text)
    assert "Released" in outline.text
    if len(evil) < 50:
        assert evil in "".join(outline.words)  # shown as it is, neither run nor lost
    assert len(text) < 1_000_000


def test_the_content_security_policy_forbids_everything_but_the_own_style(released: Path, page: Pages) -> None:
    policy = next(v for t, n, v in sound(page(released)).attributes if n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_addresses_stand_only_in_text(released: Path, page: Pages) -> None:
    text = page(released)
    attributes = " ".join(value for _, name, value in sound(text).attributes if name not in ("title", "aria-label"))
    assert "http" not in attributes.replace("http-equiv", "")


def test_pictures_are_told_or_hidden_and_tables_have_headers(released: Path, page: Pages) -> None:
    text = page(released)
    sound(text)
    for svg in re.findall(r"<svg[^>]*>", text):
        assert 'aria-hidden="true"' in svg or ('role="img"' in svg and 'aria-label="' in svg), svg
    for table in re.findall(r"<table.*?</table>", text, flags=re.S):
        assert 'scope="col"' in table
        assert 'scope="row"' in table
    assert '<html lang="en">' in text


def test_thirty_columns_stay_below_a_megabyte(builder: Any, page: Pages, upto: Any, statistics: Any) -> None:
    upto(builder.run(), "deploy")
    names = tuple(f"feature_{i}" for i in range(30))
    write_json(builder.artifacts / "validate" / "statistics" / "summary.json", statistics(names[:20], names[20:]))
    assert len(page(builder.run_dir).encode()) < 250_000


def test_of_five_hundred_slices_the_failing_and_the_largest_are_shown_and_the_rest_folded(
    released: Path, page: Pages, edit: Any
) -> None:
    artifacts = released.parent.parent / "artifacts" / "evaluate"

    def grow(document: dict[str, Any]) -> dict[str, Any]:
        estimate = {"value": 0.8, "low": 0.7, "high": 0.9}
        many = [{"slice": {"city": f"c{i:03}"}, "count": 1000 - i, "values": {"auc": estimate}} for i in range(500)]
        document["metrics"] = [document["metrics"][0], *many]
        groups = [{"slice": {"city": f"c{i:03}"}, "count": 1000 - i, "rates": {"tpr": estimate}} for i in range(300)]
        document["fairness"] = [{"over": ["city"], "groups": groups, "metrics": {}}]
        return document

    edit(artifacts / "evaluation" / "metrics.json", grow)
    failing = {"name": "auc", "passed": False, "limit": 0.85, "slice": {"city": "c499"}, "expected": ">= 0.85"}
    edit(artifacts / "blessing" / "blessing.json", lambda d: (d["decision"]["checks"].append(failing), d)[1])
    text = page(released)
    section = text.split('<section id="slices"')[1].split("<details>")[0]
    assert "500 slices" in section
    assert section.index("c499") < section.index("c000")
    assert "c250" not in section
    assert "c250" in text
    assert len(text.encode()) < 1_000_000


def test_regression_and_multiclass_are_shown_in_their_own_terms(released: Path, page: Pages, edit: Any) -> None:
    artifacts = released.parent.parent / "artifacts"

    def regress(document: dict[str, Any]) -> dict[str, Any]:
        values = {name: {"value": 12.5, "low": 11.0, "high": 14.0} for name in ("rmse", "mae", "r2")}
        bins = [{"weight": 10.0, "mean_prediction": p, "mean_label": p * 1.1} for p in (100.0, 200.0)]
        return {
            "task": "regression",
            "metrics": [{"slice": {}, "count": 5026, "values": values}],
            "calibration": {"bins": bins},
            "roc": None,
            "confusion": None,
            "champion": {"comparable": False, "reason": "the champion does binary_classification", "metrics": []},
        }

    def means(document: dict[str, Any]) -> dict[str, Any]:
        for split in document["splits"].values():
            split["label"] = {"mean": 213.7}
        return document

    edit(artifacts / "evaluate" / "evaluation" / "metrics.json", regress)
    edit(artifacts / "validate" / "statistics" / "summary.json", means)
    outline = sound(page(released))
    for part in ("RMSE", "mean label", "Mean label", "214", "the champion does binary_classification"):
        assert part in outline.text or part in page(released)
    assert "ROC" not in outline.text

    def classify(document: dict[str, Any]) -> dict[str, Any]:
        classes = [f"class {i}" for i in range(15)]
        document["confusion"] = {"classes": classes, "matrix": [[1.0] * 15] * 15}
        return document

    edit(artifacts / "evaluate" / "evaluation" / "metrics.json", classify)
    assert "3 further classes not shown" in sound(page(released)).text


def test_a_histogram_is_carried_over_to_other_edges_without_losing_rows() -> None:
    assert rebinned(Histogram(edges=(0, 1, 2), counts=(4, 8)), (0, 0.5, 2)) == [2, 10]
    assert rebinned(Histogram(edges=(2, 2), counts=(5,)), (0, 1, 2)) == [0, 5]
    assert rebinned(Histogram(edges=(5, 6), counts=(5,)), (0, 1)) == [0]


def test_the_command_renders_an_old_run_again(released: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.html"
    command = [sys.executable, "-m", "tidemill.report", str(released), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "released" in done.stdout
    sound(out.read_text(encoding="utf-8"))


def test_the_command_refuses_what_is_not_a_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tidemill.report", str(tmp_path / "none"), str(tmp_path / "out.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not a directory" in done.stderr


def test_artefacts_that_were_cleaned_away_leave_the_records(released: Path, page: Pages) -> None:
    shutil.rmtree(released.parent.parent / "artifacts")
    outline = sound(page(released))
    assert "Released" in outline.text
    assert "artefacts with their sha256" in outline.text


def test_a_check_is_read_as_the_core_defines_it() -> None:
    """A field that a check gains must be known here or be left out on purpose."""
    from dataclasses import fields

    from tidemill.decisions import Check, Decision

    assert {f.name for f in fields(Check)} == set(documents.Check.model_fields)
    assert set(documents.Decision.model_fields) <= {f.name for f in fields(Decision)}


def test_the_report_needs_neither_tensorflow_nor_numpy() -> None:
    code = (
        "import sys, tidemill.report.run\n"
        "print({'tensorflow', 'numpy', 'pyarrow', 'apache_beam', 'kfp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_reading_tells_what_is_wrong_with_a_document(released: Path) -> None:
    path = next(released.parent.parent.glob("artifacts/**/summary.json"))
    write_json(path, {"splits": {"train": {"rows": "many", "features": {"a": {"histogram": {"counts": [1]}}}}}})
    notes = evidence.read(released).notes
    assert [note.where for note in notes] == ["validate: summary.json"]
    assert "splits.train.rows" in notes[0].problem
    assert "1 counts need" in notes[0].problem


def test_half_a_surrogate_pair_does_not_cost_the_page(released: Path, page: Pages) -> None:
    path = next(released.parent.parent.glob("artifacts/**/deployment.json"))
    path.write_text(r'{"curl": "curl \ud800", "version": 3}', encoding="utf-8")
    assert r"curl \ud800" in sound(page(released)).text


def test_a_version_with_a_part_of_the_traffic_says_so(released: Path, page: Pages, edit: Callable[..., None]) -> None:
    path = next(released.parent.parent.glob("artifacts/**/deployment.json"))
    assert "of the traffic" not in page(released)
    edit(path, lambda value: {**value, "traffic": {"3": 10, "2": 90}})
    assert "It has 10 % of the traffic, and the champion the rest." in page(released)


def test_a_run_with_prices_tells_what_each_task_cost(released: Path, page: Pages, edit: Callable[..., None]) -> None:
    assert "By the prices given" not in page(released)
    hourly = {"ingest": 99.0, "transform": 3600.0, "train": None}  # ingest was reused
    tariff = {"currency": "EUR", "cpu_hour": 0.0, "gib_hour": 0.0, "hourly": hourly}
    edit(released / "run.json", lambda run: {**run, "tariff": tariff})
    outline = sound(page(released))
    assert "By the prices given, it cost about 11.20 EUR, without find-champion, validate," in outline.text
    assert "11.20" in outline.text.partition("Peak memory EUR")[2]
