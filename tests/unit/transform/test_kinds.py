"""Each kind of feature against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from tidemill.transform.run import run

LN2 = math.log(2)


def approx(values):
    return pytest.approx(values, abs=1e-6)


def sizes(stage):
    return {f.name: (f.kind, f.size, f.length) for f in stage.report.features}


def test_z_score_fills_what_is_missing_with_the_mean_and_raises_a_flag(stage):
    # Mean 20 and deviation √80 over the five finite values; null, NaN and infinity are all missing.
    z = 10 / math.sqrt(80)
    assert stage.column("train", "age") == approx([-z, 0, z, 0, 0, 0, -z, z])
    assert stage.column("train", "age__missing") == [0, 0, 0, 1, 1, 1, 0, 0]
    assert stage.column("eval", "age") == approx([2 * z, 0, 0])
    assert stage.column("eval", "age__missing") == [0, 1, 1]


def test_min_max_scales_to_the_unit_interval_of_training(stage):
    assert stage.column("train", "income") == approx([0, 0.5, 1, 1, 0, 0.5, 0.5, 0.5])
    assert stage.column("eval", "income") == approx([2, 0.5, 0])


def test_a_column_that_is_complete_in_training_has_no_flag(stage):
    assert "income__missing" not in sizes(stage)


def test_log_z_score_keeps_the_sign(stage):
    # In units of ln 2 the training values are 0, 1, 2, 3, twice each: mean 1.5, variance 1.25.
    deviation = math.sqrt(1.25)
    assert stage.column("train", "loans")[:4] == approx([(i - 1.5) / deviation for i in range(4)])
    assert stage.column("eval", "loans") == approx([2.5 / deviation, 0, -2.5 / deviation])


def test_unscaled_values_pass_and_what_overflows_float32_is_missing(stage):
    assert stage.column("train", "plain") == approx([1, 2, 3, 2, 2, 2, 2, 2])
    assert stage.column("eval", "plain") == approx([2, 2, 0])


def test_a_constant_column_is_zero_whatever_comes_later(stage):
    assert stage.column("train", "same") == [0] * 8
    assert stage.column("eval", "same") == [0, 0, 0]


def test_a_column_without_any_value_is_zero_or_missing_everywhere(stage):
    for split, rows in (("train", 8), ("eval", 3)):
        assert stage.column(split, "void") == [0] * rows
        assert stage.column(split, "void__missing") == [1] * rows
        assert stage.column(split, "void-bucket") == [0] * rows
    assert stage.column("train", "void-text") == [0] * 8
    assert stage.column("eval", "void-text") == [0, 1, 0]
    assert sizes(stage)["void-text"] == ("ids", 2, 0)


def test_buckets_are_cut_at_quantiles_and_missing_has_its_own(stage):
    # The median of 1 1 2 3 4 5 5 is 3, and a boundary belongs to the bucket above it.
    assert stage.column("train", "level") == [1, 1, 2, 2, 2, 0, 1, 2]
    assert stage.column("eval", "level") == [1, 2, 0]
    assert sizes(stage)["level"] == ("ids", 3, 0)


def test_categories_are_numbered_by_frequency_and_the_rare_are_out_of_vocabulary(stage):
    train = stage.column("train", "city")
    assert train[:5] == [2, 1, 1, 2, 1]
    assert train[5] in (3, 4), "c occurs once, less than min_frequency: an OOV bucket"
    assert train[6:] == [0, 0], "null and the empty string are the missing category"
    assert stage.column("eval", "city")[0] == 1
    assert stage.column("eval", "city")[1] in (3, 4)
    assert stage.column("eval", "city")[2] == 0
    assert sizes(stage)["city"] == ("ids", 5, 0)


def test_a_vocabulary_is_cut_to_its_most_frequent(stage):
    assert stage.column("train", "top city") == [2, 1, 1, 2, 1, 2, 0, 0]
    assert stage.report.vocabularies["top city"] == 1


def test_an_integer_category_keeps_missing_apart(stage):
    assert stage.column("train", "zone") == [1, 1, 1, 2, 2, 3, 0, 0]
    assert stage.column("eval", "zone") == [3, 4, 0]


def test_text_is_a_padded_bag_of_lower_cased_words(stage):
    # red 4, wine 3, then once each in the order of their bytes: one, three, two, äpfel (four is beyond max_words).
    assert stage.column("train", "note") == [
        [1, 1, 2], [1, 2, 0], [0, 0, 0], [0, 0, 0], [3, 5, 4], [6, 0, 0], [1, 0, 0], [2, 0, 0],
    ]  # fmt: skip
    assert stage.column("eval", "note") == [[1, 7, 0], [0, 0, 0], [2, 0, 0]]
    assert sizes(stage)["note"] == ("bag", 8, 3)


def test_iso_dates_are_points_on_a_circle_in_utc_and_what_is_no_date_is_its_centre(stage):
    thursday = (math.sin(2 * math.pi * 3 / 7), math.cos(2 * math.pi * 3 / 7))
    wednesday = (math.sin(2 * math.pi * 2 / 7), math.cos(2 * math.pi * 2 / 7))
    train = stage.column("train", "seen")
    assert train[0] == approx([1, 0, *thursday]), "six in the morning is a quarter of the day"
    assert train[1] == approx(train[0]), "the same moment, told in another zone"
    assert train[2] == approx([-1, 0, *wednesday])
    assert train[3] == approx([0, 1, *thursday])
    assert train[4:] == [[0, 0, 0, 0]] * 4
    assert stage.column("eval", "seen")[0][:2] == approx([0, -1])
    assert stage.column("eval", "seen")[1] == [0, 0, 0, 0]


def test_epoch_dates(stage):
    assert stage.column("train", "born")[:2] == [approx([0, 1]), [0, 0]]
    april = 2 * math.pi * 3 / 12
    december = 2 * math.pi * 11 / 12
    assert stage.column("eval", "born")[0] == approx([math.sin(april), math.cos(april)])
    assert stage.column("eval", "born")[2] == approx([math.sin(december), math.cos(december)])


def test_crossed_columns_hash_alike_when_all_of_them_agree(stage):
    train = stage.column("train", "city_zone")
    assert all(0 <= value < 50 for value in train)
    assert len(set(train)) >= 6, "eight combinations, at most two collisions in 50 buckets"


def test_label_and_weight(stage):
    assert stage.column("train", "__label__") == [1, 0] * 4
    assert stage.column("eval", "__weight__") == [0.5, 0, 1]


MANY = """
name: many
task: regression
label: {column: y}
features:
  x: numeric
  b: {kind: bucketized, column: x}
"""


def test_over_many_batches_the_figures_are_numpys(make_inputs, tmp_path):
    """Also more rows than a row group holds, and several files."""
    values = np.random.default_rng(0).lognormal(size=70_000)
    values[::10] = np.nan
    columns = {name: ("float64", {"train": data}) for name, data in (("x", values), ("y", np.zeros(len(values))))}
    inputs = make_inputs(MANY, columns, ())
    pq.write_table(
        pq.read_table(inputs.examples / "train" / "part-00000.parquet"),
        inputs.examples / "train" / "part-00001.parquet",
    )
    report = run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")
    assert report.rows == {"train": 140_000}
    assert pq.read_metadata(tmp_path / "t" / "train" / "part-00000.parquet").num_row_groups == 2
    table = pq.read_table(tmp_path / "t" / "train" / "part-00001.parquet")
    there = ~np.isnan(values)
    expected = (values[there].astype(np.float32) - values[there].mean()) / values[there].std()
    np.testing.assert_allclose(table["x"].to_numpy()[there], expected, atol=1e-5)
    assert (table["x"].to_numpy()[~there] == 0).all()
    shares = np.bincount(table["b"].to_numpy(), minlength=11) / len(values)
    assert shares[0] == pytest.approx(0.1), "the missing"
    np.testing.assert_allclose(shares[1:], 0.09, atol=0.01 * 0.9)
