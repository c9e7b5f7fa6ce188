"""What ``tidemill init`` sees in a table."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tidemill.errors import DataError
from tidemill.ingest import delimited, profile
from tidemill.ingest.prediction import predictability
from tidemill.ingest.profile import TableFacts

N = 2000


def facts_of(tmp_path, body: str, label: str = "y", encoding: str = "utf-8", name: str = "t.csv") -> TableFacts:
    (tmp_path / name).write_bytes(body.encode(encoding))
    return profile.profile(str(tmp_path / name), label)


def column(facts: TableFacts, name: str) -> profile.ColumnFacts:
    return next(c for c in facts.columns if c.name == name)


def test_facts_of_numbers_text_and_dates(tmp_path):
    body = "n,f,word,day,note,y\n" + "".join(
        f"{i},{i / 4},w{i % 3},2024-01-{1 + i % 28:02d} 10:00:00,some words here {i},{i % 2}\n" for i in range(100)
    )
    facts = facts_of(tmp_path, body)
    assert (facts.rows, facts.sampled, facts.label.name, facts.label.alone) == (100, 100, "y", None)
    n, word, day = column(facts, "n"), column(facts, "word"), column(facts, "day")
    assert (n.type, n.low, n.high, n.middle, n.distinct, n.ascending) == ("int64", 0, 99, 49.5, 100, True)
    assert column(facts, "f").type == "float64"
    assert word.top == (("w0", 0.34), ("w1", 0.33), ("w2", 0.33))
    assert day.iso_dates
    assert day.type == "string"
    assert column(facts, "note").words == 4
    assert not word.iso_dates


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_delimiter_and_encoding_are_guessed(delimiter, encoding, tmp_path):
    rows = [["name", "x", "y"], *([f"Jörg {i}", str(i), str(i % 2)] for i in range(30))]
    facts = facts_of(tmp_path, "".join(delimiter.join(row) + "\n" for row in rows), encoding=encoding)
    assert (facts.delimiter, facts.encoding) == (delimiter, encoding)
    assert [c.name for c in facts.columns] == ["name", "x"]


def test_markers_of_missing_values_are_found_and_types_see_through_them(tmp_path):
    body = "n,w,all,y\n" + "".join(f"{'?' if i % 5 else i},{'NA' if i % 2 else 'w'},?,{i % 2}\n" for i in range(100))
    facts = facts_of(tmp_path, body)
    assert facts.null_values == ("", "?", "NA")
    assert (column(facts, "n").type, column(facts, "n").missing) == ("int64", 0.8)
    assert (column(facts, "w").distinct, column(facts, "all").type, column(facts, "all").values) == (1, "null", 0)


def test_types_come_from_all_rows_and_the_rest_from_an_even_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "_SAMPLE_ROWS", 200)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1024)
    body = "n,y\n" + "".join(f"{i},{i % 2}\n" for i in range(5000)) + "0.5,1\nbroken\n"
    facts = facts_of(tmp_path, body)
    assert facts.rows == 5001
    assert facts.unreadable == {"wrong number of fields": 1}
    assert 200 <= facts.sampled <= 400
    assert column(facts, "n").type == "float64"
    assert column(facts, "n").middle == pytest.approx(2500, rel=0.2)


def test_a_label_or_rows_that_are_missing_are_told(tmp_path):
    with pytest.raises(DataError, match=r"label column 'Y'.*\n.*did you mean 'y'"):
        facts_of(tmp_path, "x,y\n1,2\n", label="Y")
    with pytest.raises(DataError, match="holds no rows"):
        facts_of(tmp_path, "x,y\n")
    with pytest.raises(DataError, match="files only"):
        profile.profile("bq://p.d.t", "y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["no"] * 50, "the label 'y' has a single value: there is nothing to learn .got 'no' in 50 rows"),
        (["no", "?"] * 25, "has a single value"),
        (["7"] * 50, "has a single value"),
        (["?"] * 50, "the label 'y' has no value: there is nothing to learn"),
    ],
)
def test_a_label_that_is_the_same_everywhere_is_refused(values, message, tmp_path):
    with pytest.raises(DataError, match=message) as failure:
        facts_of(tmp_path, "x,y\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values)))
    assert failure.value.exit_code == 4


def test_a_label_that_is_the_same_in_the_sample_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "_SAMPLE_ROWS", 200)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1024)
    with pytest.raises(DataError, match=r"'0' in a sample of [23]\d\d of 5,000 rows"):
        facts_of(tmp_path, "x,y\n" + "".join(f"{i},0\n" for i in range(5000)))


def test_the_deviation_is_the_populations_and_none_where_it_overflows(tmp_path):
    body = "n,huge,y\n" + "".join(f"{i % 2 * 4},{'1e300' if i % 2 else '-1e300'},{i % 2}\n" for i in range(50))
    facts = facts_of(tmp_path, body)
    assert column(facts, "n").deviation == 2
    assert column(facts, "huge").deviation is None


def noisy(seed: int = 0) -> tuple[np.ndarray, np.random.Generator]:
    random = np.random.default_rng(seed)
    return random.normal(size=N), random


def test_a_column_that_gives_the_label_away_is_measured_so():
    signal, random = noisy()
    for target in (pa.array(signal > 0).cast("int64"), pa.array(signal), pa.array(np.digitize(signal, [-1, 1]))):
        assert predictability(pa.array(signal), target) > 0.95
        assert predictability(pa.array(random.normal(size=N)), target) < 0.1
        assert 0.1 < predictability(pa.array(signal + 0.5 * random.normal(size=N)), target) < 0.95


def test_the_measure_for_two_classes_is_the_auc():
    """With a column of two values the ranking is known in closed form: AUC = (1 + tpr - fpr) / 2."""
    _, random = noisy()
    truth, guess = random.random(N) < 0.3, random.random(N) < 0.5
    guess = np.where(random.random(N) < 0.5, truth, guess)
    tpr, fpr = guess[truth].mean(), guess[~truth].mean()
    measured = predictability(pa.array(guess.astype(str)), pa.array(truth.astype(str)))
    assert measured == pytest.approx(tpr - fpr, abs=0.02)


def test_identifiers_and_missing_values_predict_nothing_by_memory():
    signal, _ = noisy()
    target = pa.array(np.where(signal > 0, "yes", "no"))
    assert predictability(pa.array([f"id{i}" for i in range(N)]), target) == pytest.approx(0, abs=0.05)
    assert predictability(pa.nulls(N, pa.string()), target) == 0
    assert predictability(pa.array([1.0, 2.0]), pa.array(["a", "b"])) == 0


def test_missing_can_be_the_leak():
    signal, _ = noisy()
    column = pa.array(signal, mask=signal > 0)
    assert predictability(column, pa.array((signal > 0).astype(int))) > 0.97


def test_the_module_prints_json_and_ends_with_the_documented_code(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(50)))
    command = [sys.executable, "-m", "tidemill.ingest.profile", str(tmp_path / "t.csv")]
    done = subprocess.run([*command, "y"], capture_output=True, text=True)
    assert json.loads(done.stdout)["rows"] == 50
    done = subprocess.run([*command, "z"], capture_output=True, text=True)
    assert done.returncode == 4
    assert "expected the label column 'z'" in done.stderr


def test_json_and_parquet_are_looked_at_too(tmp_path):
    body = "".join(json.dumps({"x": i, "y": i % 2}) + "\n" for i in range(50))
    assert facts_of(tmp_path, body, name="t.jsonl").rows == 50
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": range(50), "y": [i % 2 for i in range(50)]}), tmp_path / "t.parquet")
    assert profile.profile(str(tmp_path / "t.parquet"), "y").rows == 50
