"""``tidemill init``: what it suggests, what it writes, and that the two fit together."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import tidemill_pipelines.cli as cli
from tidemill.errors import PlatformError, UsageError, UserError
from tidemill.ingest.suggestion import suggest
from tidemill.problem import load_problem, parse_problem
from tidemill_pipelines.commands.init import problem_text
from tidemill_pipelines.targets.local import environments


def facts(name: str = "c", **changes: Any) -> dict[str, Any]:
    """Facts of an unremarkable number, changed as told."""
    plain = {
        "name": name,
        "type": "int64",
        "missing": 0.0,
        "distinct": 40,
        "values": 1000,
        "top": [["1", 0.4], ["2", 0.3]],
        "low": 0.0,
        "high": 50.0,
        "middle": 20.0,
        "deviation": 12.0,
        "words": 0.0,
        "length": 0.0,
        "iso_dates": False,
        "ascending": False,
        "alone": 0.1,
    }
    return {**plain, **changes}


def text(name: str = "c", **changes: Any) -> dict[str, Any]:
    """Facts of an unremarkable text, changed as told."""
    plain = {
        "type": "string",
        "low": None,
        "high": None,
        "middle": None,
        "deviation": None,
        "words": 1.0,
        "length": 5.0,
    }
    return facts(name, **{**plain, "top": [["red", 0.4], ["blue", 0.3]], **changes})


LABEL = text("y", distinct=2, top=[["no", 0.7], ["yes", 0.3]], alone=None)


@pytest.mark.parametrize(
    ("column", "settings"),
    [
        (facts("age"), {"kind": "numeric"}),
        (facts("income", middle=30_000.0, high=9e6), {"kind": "numeric", "scale": "log_z_score"}),
        (facts("gain", middle=0.0, high=99_999.0), {"kind": "numeric", "scale": "log_z_score"}),
        (facts("change", low=-5.0, high=9e6), {"kind": "numeric"}),
        (facts("pickup_latitude", low=41.6, high=42.0), {"kind": "bucketized", "buckets": 20}),
        (facts("latitude", low=0.0, high=5000.0, middle=2000.0), {"kind": "numeric"}),
        (facts("start_hour", distinct=24), {"kind": "categorical", "max_vocabulary": 50}),
        (facts("zipCode", distinct=700), {"kind": "categorical", "max_vocabulary": 1000}),
        (facts("created_at", low=1.4e9, high=1.5e9, distinct=990), {"kind": "date", "format": "epoch_s"}),
        (facts("timestamp", low=1.4e12, high=1.5e12, distinct=990), {"kind": "date", "format": "epoch_ms"}),
        (text("seen", iso_dates=True, distinct=990), {"kind": "date", "format": "iso8601"}),
        (text("colour"), {"kind": "categorical"}),
        (
            text("employer", distinct=1500, values=5000),
            {"kind": "categorical", "max_vocabulary": 2000, "min_frequency": 2, "oov_buckets": 16},
        ),
        (text("note", words=9.0, distinct=900), {"kind": "text"}),
        (text("company", words=3.2, distinct=60), {"kind": "categorical"}),
    ],
)
def test_a_columns_kind_follows_from_its_name_and_values(column, settings):
    suggestion = suggest(LABEL, [column])
    assert suggestion.left_out == {}
    assert dict(suggestion.features[column["name"]][0]) == settings


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (facts(values=0, distinct=0, low=None, high=None), "no value at all"),
        (facts(distinct=1), "one value only: '1'"),
        (facts(alone=0.99), "predicts the label nearly perfectly on its own (AUC 0.995)"),
        (facts("fnlwgt", distinct=900), "sampling weight"),
        (facts("sample-weight"), "sampling weight"),
        (facts("row", distinct=1000, ascending=True), "identifier: 1,000 values in 1,000 rows"),
        (facts("customer_id", distinct=1500, values=5000), "identifier"),
        (text("token", distinct=980), "identifier"),
        (text("userId", distinct=1500, values=5000), "identifier"),
    ],
)
def test_what_would_mislead_is_left_out_with_the_reason(column, reason):
    suggestion = suggest(LABEL, [column])
    assert suggestion.features == {}
    assert reason in suggestion.left_out[column["name"]]


def test_a_unique_number_that_is_no_index_is_kept():
    assert (
        suggest(LABEL, [facts("amount", distinct=1000), facts("price", type="float64", distinct=1000)]).left_out == {}
    )


@pytest.mark.parametrize(
    ("label", "task", "positive"),
    [
        (LABEL, "binary_classification", "yes"),
        (text("y", distinct=2, top=[["<=50K", 0.76], [">50K", 0.24]]), "binary_classification", ">50K"),
        (facts("y", distinct=2, top=[["1", 0.9], ["0", 0.1]]), "binary_classification", "1"),
        (text("y", distinct=2, top=[["gone", 0.9], ["stayed", 0.1]]), "binary_classification", "stayed"),
        (text("y", distinct=300), "multiclass_classification", None),
        (facts("y", distinct=5), "multiclass_classification", None),
        (facts("y", type="float64", distinct=5), "multiclass_classification", None),
        (facts("y", type="float64", distinct=5, top=[["0.5", 1.0]]), "regression", None),
        (facts("y", distinct=400), "regression", None),
    ],
)
def test_the_task_and_the_positive_class_follow_from_the_label(label, task, positive):
    suggestion = suggest(label, [facts("x")])
    assert (suggestion.task, suggestion.positive) == (task, positive)


def test_roles_are_pointed_out():
    columns = [
        facts("age"),
        text("native-country"),
        text("sex", distinct=2),
        text("raceEthnicity", distinct=5),
        text("stage"),
        facts("survey_weight", type="float64"),
        text("when", iso_dates=True, distinct=900),
        text("customer_id", distinct=1200, values=5000),
    ]
    suggestion = suggest(LABEL, columns)
    assert suggestion.sensitive == ("sex", "raceEthnicity", "age", "native-country")
    assert (suggestion.weight, suggestion.time, suggestion.group) == ("survey_weight", "when", "customer_id")


def table_facts(label: dict[str, Any], columns: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    plain = {"source": "data/t.csv", "rows": 1000, "unreadable": {}, "sampled": 1000, "delimiter": ","}
    reading = {"encoding": "utf-8", "null_values": [""]}
    return {**plain, **reading, "label": label, "columns": columns, **changes}


AWKWARD = [
    "yes",
    "1",
    "a: b",
    "# c",
    "[d",
    "e, f",
    "é",
    'quo"te',
    "it's",
    "null",
    "multi\nline",
    " padded ",
    "{g}",
    "%h",
]


def test_any_column_name_and_value_survives_the_yaml():
    label = text("on", distinct=2, top=[["no: really", 0.7], ["true\n", 0.3]], alone=None)
    columns = [text(name, top=[["a\nb # c", 0.5]], missing=0.3) for name in AWKWARD]
    columns += [text(f"{name}_id", distinct=990) for name in AWKWARD]
    found = table_facts(label, columns, delimiter="\t", encoding="cp1252", null_values=["", "?", "NA", "#N/A"])
    problem = parse_problem(problem_text("9 Odd/Näme", found, suggest(label, columns)), "problem.yaml")
    assert list(problem.features) == AWKWARD
    assert problem.label.column == "on"
    assert problem.label.positive == "true\n"
    assert problem.name == "problem-9-odd-n-me"
    assert (problem.ingest.delimiter, problem.ingest.encoding) == ("\t", "cp1252")
    assert problem.ingest.null_values == ("", "?", "NA", "#N/A")


def test_the_comments_hold_valid_settings_to_uncomment():
    columns = [
        text("sex", distinct=2),
        text("race", distinct=5),
        facts("age"),
        facts("fnlwgt", distinct=900),
        text("when", iso_dates=True, distinct=900),
        text("customer_id", distinct=1200, values=5000),
    ]
    written = problem_text("p", table_facts(LABEL, columns), suggest(LABEL, columns))
    uncommented = re.sub(r"^# (?=(sensitive|weight|time|split|group): )", "", written, flags=re.MULTILINE)
    problem = parse_problem(uncommented, "problem.yaml")
    assert problem.sensitive == (("sex",), ("race",), ("sex", "race"))
    assert (problem.weight, problem.time, problem.split.method) == ("fnlwgt", "when", "temporal")
    assert problem.group == ("customer_id",)
    assert "(age: too many values for slices" in written
    assert max(map(len, written.splitlines())) <= 120


def test_limits_make_room_for_the_rows_that_are_known_to_be_bad():
    label = {**LABEL, "missing": 0.05}
    found = table_facts(label, [facts("x")], rows=90, unreadable={"wrong number of fields": 10})
    problem = parse_problem(problem_text("p", found, suggest(label, [facts("x")])), "problem.yaml")
    assert problem.gates.data.max_quarantined >= 0.15


def test_a_table_too_small_to_train_on_is_not_let_through_the_data_gate(tmp_path, monkeypatch):
    """The gate's own default holds: a limit fitted to 29 rows would release a model of 29 rows."""
    monkeypatch.setattr(environments, "call", lambda *_: table_facts(LABEL, [facts("x")], rows=29))
    done = runner.invoke(cli.app, ["init", str(tmp_path), "--source", "t.csv", "--label", "y"])
    told = "29 rows are too few: a run is refused below 100 (gates.data.min_rows)"
    assert told in done.output
    assert told in (tmp_path / "problem.yaml").read_text().replace("\n# ", " ")
    assert load_problem(tmp_path).gates.data.min_rows == 100


@pytest.mark.parametrize(
    ("label", "metric", "worse"),
    [
        (LABEL, "auc", 0.01),
        (text("y", distinct=5), "accuracy", 0.01),
        (facts("y", distinct=400, deviation=1234.5), "rmse", 12.0),
        (facts("y", distinct=400, deviation=0.00123), "rmse", 0.000012),
        (facts("y", distinct=400, deviation=None), "rmse", None),
    ],
)
def test_a_model_may_be_little_worse_than_the_champion(label, metric, worse):
    found = table_facts(label, [facts("x")])
    (limit,) = parse_problem(problem_text("p", found, suggest(label, [facts("x")])), "problem.yaml").gates.quality
    assert (limit.metric, limit.max_worse_than_champion) == (metric, worse)


def test_the_next_command_can_be_pasted_whatever_the_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "call", lambda *_: table_facts(LABEL, [facts("x")]))
    target, source = tmp_path / "my problem", "it's *.csv"
    done = runner.invoke(cli.app, ["init", str(target), "--source", source, "--label", "y"])
    (command,) = re.findall(r"^next: read it, then `(.*)`$", done.output, re.MULTILINE)
    assert shlex.split(command) == ["tidemill", "run", str(target), "--source", source]
    assert "detected" not in done.output


runner = CliRunner()


def installed() -> bool:
    try:
        environments.interpreter("tensorflow")
    except PlatformError:
        return False
    return True


real = pytest.mark.skipif(not installed(), reason="needs the tensorflow environment")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    rows = [
        f"p{i};{20 + i * 7 % 60};{'mf'[i % 2]};{['red', 'blue', '?'][i % 3]};{'left' if i % 4 == 0 else 'here'};"
        f"{'yes' if i % 4 == 0 else 'no'}"
        for i in range(400)
    ]
    path.write_text("id;age;gender;colour;status;churned\n" + "\n".join(rows) + "\n")
    return path


@real
def test_it_writes_a_problem_that_loads_and_says_what_it_did(people, tmp_path):
    target = tmp_path / "problems" / "churn"
    done = runner.invoke(cli.app, ["init", str(target), "--source", str(people), "--label", "churned"])
    assert done.exit_code == 0, done.output
    problem = load_problem(target)
    assert set(problem.features) == {"age", "gender", "colour"}
    assert (problem.name, problem.task, problem.label.positive) == ("churn", "binary_classification", "yes")
    assert (problem.ingest.delimiter, problem.ingest.null_values) == (";", ("", "?"))
    assert "detected:\n  delimiter: ;\n  null_values: ['', '?']\n" in done.output
    assert "status: predicts the label nearly perfectly" in done.output
    assert f"tidemill run {target} --source {people}" in done.output
    assert "#   id: looks like an identifier" in (target / "problem.yaml").read_text()


@real
def test_it_replaces_a_problem_only_when_forced(people, tmp_path):
    arguments = ["init", str(tmp_path), "--source", str(people), "--label", "churned", "--json"]
    (tmp_path / "problem.yaml").write_text("mine")
    refused = runner.invoke(cli.app, arguments)
    assert isinstance(refused.exception, UsageError)
    assert "--force" in str(refused.exception)
    assert (tmp_path / "problem.yaml").read_text() == "mine"
    done = runner.invoke(cli.app, [*arguments, "--force"])
    told = json.loads(done.stdout)
    assert told["sensitive"] == ["gender", "age"]
    assert set(told["left_out"]) == {"id", "status"}
    assert yaml.safe_load((tmp_path / "problem.yaml").read_text())["task"] == told["task"]


@real
def test_a_missing_label_column_is_told_with_what_there_is(people, tmp_path):
    failed = runner.invoke(cli.app, ["init", str(tmp_path), "--source", str(people), "--label", "churn"])
    assert isinstance(failed.exception, UserError)
    assert "did you mean 'churned'" in str(failed.exception)
    assert not (tmp_path / "problem.yaml").exists()


@real
def test_a_label_with_a_single_value_is_refused(people, tmp_path):
    people.write_text(people.read_text().replace(";yes", ";no"))
    failed = runner.invoke(cli.app, ["init", str(tmp_path), "--source", str(people), "--label", "churned"])
    assert isinstance(failed.exception, UserError)
    assert failed.exception.exit_code == 4
    assert "has a single value: there is nothing to learn (got 'no' in 400 rows)" in str(failed.exception)
    assert not (tmp_path / "problem.yaml").exists()


def test_a_table_with_nothing_to_learn_from_is_refused(tmp_path, monkeypatch):
    found = table_facts(LABEL, [facts("row_id", distinct=1000)])
    monkeypatch.setattr(environments, "call", lambda *_: found)
    failed = runner.invoke(cli.app, ["init", str(tmp_path), "--source", "t.csv", "--label", "y"])
    assert isinstance(failed.exception, UsageError)
    assert "row_id looks like an identifier" in str(failed.exception)


def test_help_shows_examples_and_importing_it_is_light():
    done = runner.invoke(cli.app, ["init", "--help"])
    assert "adult.csv" in done.output
    assert not {"pyarrow", "pandas", "tensorflow"} & set(sys.modules)


@real
@pytest.mark.parametrize(("data", "label"), [("adult/adult.csv", "income-per-year"), ("taxi/trips.csv", "tips")])
def test_the_real_tables_get_sensible_problems(data, label, tmp_path):
    source = Path(__file__).parents[4] / "shared" / "data" / data
    if not source.is_file():
        pytest.skip("shared data is not here")
    done = runner.invoke(cli.app, ["init", str(tmp_path), "--source", str(source), "--label", label, "--json"])
    told = json.loads(done.stdout)
    assert load_problem(tmp_path).label.column == label
    if label == "tips":
        assert told["task"] == "regression"
        assert told["time"] == "trip_start_timestamp"
        assert set(told["left_out"]) == {"pickup_census_tract"}
        assert told["features"]["pickup_latitude"]["kind"] == "bucketized"
        assert told["features"]["trip_start_hour"]["kind"] == "categorical"
    else:
        assert told["positive"] == ">50K"
        assert set(told["left_out"]) == {"fnlwgt"}
        assert set(told["sensitive"]) == {"age", "marital-status", "race", "sex", "native-country"}
