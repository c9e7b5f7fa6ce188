"""problem.yaml is strict, and says all that is wrong with it at once, with lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tidemill.errors import ProblemError
from tidemill.features import Bucketized, Crossed, Numeric
from tidemill.problem import dump_problem, json_schema, load_problem, parse_problem

MINIMAL = """\
name: loans
task: binary_classification
label: {column: repaid, positive: "yes"}
features:
  age: numeric
"""
PROBLEMS = Path(__file__).parents[3] / "pipelines" / "problems"


def faults(text: str, overrides: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ProblemError) as caught:
        parse_problem(text, "problem.yaml", overrides)
    return [line.strip() for line in str(caught.value).splitlines()]


def test_a_minimal_problem_has_defaults_for_everything_else():
    problem = parse_problem(MINIMAL, "problem.yaml")
    assert problem.features == {"age": Numeric()}
    assert (problem.split.train, problem.threshold, problem.sensitive) == (0.8, 0.5, ())
    assert problem.training.model == "wide_and_deep"
    assert problem.gates.serving.p99_ms == 250


def test_features_are_written_in_full_or_as_their_kind_alone():
    problem = parse_problem(
        MINIMAL + "  hours: {kind: bucketized, buckets: 7, column: hours-per-week}\n"
        "  both: {kind: crossed, of: [sex, race]}\n",
        "problem.yaml",
    )
    assert problem.features["hours"] == Bucketized(buckets=7, column="hours-per-week")
    assert problem.features["both"] == Crossed(of=("sex", "race"))
    assert problem.raw_columns == ("age", "hours-per-week", "sex", "race")


def test_a_seed_is_no_negative_number():
    found = faults(MINIMAL + "split: {seed: -1}\ntraining: {seed: -1}\n")
    assert [line for line in found if "split.seed" in line and "greater than or equal to 0" in line]
    assert [line for line in found if "training.seed" in line and "greater than or equal to 0" in line]


def test_a_sensitive_column_needs_no_brackets():
    problem = parse_problem(MINIMAL + "sensitive: [sex, [sex, race]]\n", "problem.yaml")
    assert problem.sensitive == (("sex",), ("sex", "race"))


def test_needed_columns_are_those_of_every_part_and_each_once():
    problem = parse_problem(
        MINIMAL + "weight: w\ntime: t\ngroup: [customer]\nsensitive: [sex, [sex, age]]\nsplit: {key: id}\n", "p"
    )
    assert problem.needed_columns == ("age", "repaid", "w", "t", "id", "customer", "sex")


def test_an_unknown_key_is_an_error_with_its_line():
    told = ["problem.yaml: 1 fault", "line 6: treshold: unknown key; did you mean threshold?"]
    assert faults(MINIMAL + "treshold: 0.4\n") == told


def test_all_faults_of_a_file_are_told_at_once():
    text = """\
name: Loans!
task: clustering
label: {column: repaid, positive: "yes"}
features:
  age: {kind: numeric, buckets: 3}
  income: number
  city: {buckets: 2}
  pair: {kind: crossed, of: [a]}
threshold: 2
threshold: 0.4
"""
    told = faults(text)
    assert told[0] == "problem.yaml: 7 faults"
    for line, start in (
        (1, "name"),
        (2, "task"),
        (5, "features.age.buckets: unknown key"),
        (
            6,
            "features.income: kind must be one of numeric, bucketized, categorical, text, image, date, crossed "
            "(got 'number')",
        ),
        (7, "features.city: kind must be one of"),
        (8, "features.pair.of"),
        (10, "threshold: stands twice"),
    ):
        assert any(fault.startswith(f"line {line}: {start}") for fault in told), (line, start, told)


def test_a_feature_named_like_a_kind_keeps_its_name_in_messages():
    assert faults(MINIMAL + "  text: {kind: text, words: 3}\n")[1] == "line 6: features.text.words: unknown key"


def test_a_fault_inside_a_list_has_the_line_of_its_entry():
    text = MINIMAL + "gates:\n  quality:\n    - {metric: auc, min: 0.8}\n    - {metric: speed, min: 1}\n"
    assert faults(text)[1].startswith("line 9: gates.quality.1.metric: Input should be 'accuracy'")


def test_a_key_that_stands_twice_is_an_error_at_any_depth():
    text = MINIMAL + "  age: categorical\ngates:\n  data: {min_rows: 1, min_rows: 2}\n"
    assert faults(text)[1:] == ["line 6: features.age: stands twice", "line 8: gates.data.min_rows: stands twice"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("label: {column: repaid}", "label.positive is needed for binary_classification"),
        ("label: {column: age, positive: 1}", "label.positive"),
        ("label: {column: age, positive: '1'}", "features must not read age: the label is made of it"),
        ("label: {positive: x}", "needs exactly one of `column` and `expression`"),
        ("label: {column: a, expression: b > 1, uses: [b]}", "needs exactly one of `column` and `expression`"),
        ("label: {expression: tips > 1}", "needs `uses`"),
        ("label: {expression: tips > age, uses: [tips, age]}", "features must not read age"),
        ("label: {expression: tips > 1, uses: [tips], leaks: [fare]}", "`leaks` names fare, which `uses` does not"),
        ("label: {expression: tips > 1, uses: [tips], name: age}", "features must not read age"),
        ("task: regression", "label.positive has no meaning for regression"),
        ("weight: age", "weight column age must not be a feature"),
        ("split: {method: temporal}", "split.method temporal needs `time`"),
        ("split: {train: 0.5}", "train + eval + test must be 1, not 0.7"),
        ("baseline: mean", "baseline mean does not fit task binary_classification"),
        ("gates: {quality: [{metric: auc}]}", "needs one of min, max"),
        ("gates: {fairness: [{metric: equal_opportunity_gap, max: 0.1}]}", "gates.fairness needs `sensitive`"),
        ("gates: {fairness: [{metric: equal_opportunity_gap, min: 0.1}]}", "equal_opportunity_gap needs `max`"),
        ("gates: {fairness: [{metric: predictive_parity_ratio, max: 0.1}]}", "needs `min` and nothing else"),
        ("name: UPPER", "String should match pattern"),
        ("features: {}", "at least 1 item"),
        ("user_code: {model: model.py}", "String should match pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, fault):
    value = yaml.safe_load(MINIMAL) | yaml.safe_load(change)
    assert fault in "\n".join(faults(yaml.safe_dump(value)))


def test_fairness_limits_watch_entries_of_sensitive_in_any_order():
    limit = "gates: {fairness: [{metric: equal_opportunity_gap, max: 0.1, over: [race, sex]}]}\n"
    parse_problem(MINIMAL + "sensitive: [[sex, race]]\n" + limit, "problem.yaml")
    assert "gates.fairness.0.over ['race', 'sex'] is not an entry" in faults(MINIMAL + "sensitive: [sex]\n" + limit)[1]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"split": {"method": "stratified"}}, "split.method stratified needs a classification task"),
        (
            {"sensitive": ["sex"], "gates": {"fairness": [{"metric": "equal_opportunity_gap", "max": 0.1}]}},
            "gates.fairness needs binary_classification",
        ),
    ],
)
def test_a_regression_refuses_what_needs_classes(change, fault):
    value = {"name": "x", "task": "regression", "label": {"column": "y"}, "features": {"a": "numeric"}, **change}
    assert fault in faults(yaml.safe_dump(value))[1]


def test_an_expression_may_read_a_feature_that_does_not_tell_the_label():
    text = MINIMAL.replace(
        '{column: repaid, positive: "yes"}', "{expression: tips > age, uses: [tips, age], leaks: [tips]}"
    )
    problem = parse_problem(text, "problem.yaml")
    assert problem.needed_columns == ("age", "tips")
    assert problem.label.output == "label"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected a mapping"),
        ("- a\n", "expected a mapping with name, task, label and features (got list)"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(text, fault):
    assert fault in " ".join(faults(text))


def test_values_are_overridden_by_dotted_path():
    problem = parse_problem(
        MINIMAL, "problem.yaml", {"training.hidden_units": "[8, 4]", "training.max_epochs": "2", "weight": "w"}
    )
    assert (problem.training.hidden_units, problem.training.max_epochs, problem.weight) == ((8, 4), 2, "w")


def test_a_faulty_override_is_told_as_one():
    assert faults(MINIMAL, {"training.max_epochs": "many"})[1].startswith("--set training.max_epochs: Input should be")
    unknown = "--set training.epochs: unknown key; did you mean max_epochs?"
    assert faults(MINIMAL, {"training.epochs": "1"})[1] == unknown
    assert faults(MINIMAL, {"training": "{epochs: 1}"})[1] == unknown
    assert faults(MINIMAL, {"name.first": "x"}) == ["--set name.first: name is not a mapping"]
    assert faults(MINIMAL, {"weight": "[w"}) == ["--set weight: the value is not YAML (got '[w')"]


def test_a_problem_is_read_from_its_file_or_its_directory(tmp_path):
    (tmp_path / "problem.yaml").write_text(MINIMAL)
    assert load_problem(tmp_path) == load_problem(tmp_path / "problem.yaml")


def test_a_missing_problem_is_told_with_the_remedy(tmp_path):
    with pytest.raises(ProblemError, match="no such file\n  → `tidemill init`"):
        load_problem(tmp_path)


def test_a_problem_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "problem.yaml").write_bytes(MINIMAL.encode() + b"# caf\xe9\n")
    with pytest.raises(ProblemError, match="is not UTF-8"):
        load_problem(tmp_path)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PROBLEMS.glob("*/problem.yaml")))
def test_a_shipped_problem_is_valid_and_survives_being_dumped(name):
    problem = load_problem(PROBLEMS / name)
    assert problem.name == name
    assert parse_problem(dump_problem(problem), "dumped") == problem


def test_a_dumped_problem_says_only_what_was_said():
    assert yaml.safe_load(dump_problem(parse_problem(MINIMAL, "p"))) == {
        **yaml.safe_load(MINIMAL),
        "features": {"age": {"kind": "numeric"}},
    }


def test_the_json_schema_describes_keys_and_takes_both_ways_of_writing():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "task", "label", "features"}
    assert "early_stopping_patience" in schema["$defs"]["Training"]["properties"]
    for definition, key in (("Label", "leaks"), ("SplitConfig", "key"), ("DataGate", "allow"), ("Crossed", None)):
        described = schema["$defs"][definition]
        assert (described["properties"][key] if key else described)["description"]
    kinds = schema["properties"]["features"]["additionalProperties"]["anyOf"]
    assert {"enum": ["numeric", "bucketized", "categorical", "text", "image", "date"], "type": "string"} in kinds
    assert {"type": "string"} in schema["properties"]["sensitive"]["items"]["anyOf"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("gates: {quality: [{metric: r2, min: 0.1}]}", "binary_classification has no r2, only auc"),
        ("gates: {quality: [{metric: mean_label, max_worse_than_champion: 0.1}]}", "no better or worse"),
        ("gates: {quality: [{metric: auc, min_better_than_baseline: 0.1}]}", "needs `baseline`"),
        (
            "baseline: majority\ngates: {quality: [{metric: log_loss, min_better_than_baseline: 0.1}]}",
            "the rule `majority` has no log_loss, only accuracy",
        ),
        ("gates: {quality: [{metric: auc, min: 0.1, slices: sensitive}]}", "needs `sensitive`"),
    ],
)
def test_limits_that_cannot_be_decided_are_told_before_anything_runs(more, message):
    (_, fault) = faults(f"{MINIMAL}{more}\n")
    assert "gates.quality.0: " in fault
    assert message in fault


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (
            "{hidden_units: [32, 0]}",
            "line 6: training.hidden_units.1: Input should be greater than or equal to 1",
        ),
        (
            "{model: ft_transformer, embedding_dimensions: 12}",
            "line 6: training: `embedding_dimensions` (12) must be a multiple of `attention_heads` (8)",
        ),
        (
            "{model: ft_transformer, attention_heads: 7}",
            "line 6: training: `embedding_dimensions` (64) must be a multiple of `attention_heads` (7)",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_anything_runs(training: str, told: str):
    assert told in faults(f"{MINIMAL}training: {training}\n")[1]
