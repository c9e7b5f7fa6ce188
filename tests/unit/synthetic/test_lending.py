"""The lending data are as configured, and the truth beside them is true."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv

from tidemill.errors import UsageError
from tidemill.synthetic import population
from tidemill.synthetic.lending import BLOCK_ROWS, LendingConfig, generate, main, write

DRIFT = date(2024, 1, 1)


def auc(positive: pd.Series, score: pd.Series) -> float:
    """Mann-Whitney's statistic."""
    ranks, n = score.rank(), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def gap(frame: pd.DataFrame, column: str) -> float:
    """The others' mean minus the disadvantaged group's."""
    member = frame.ethnicity == "Boreal"
    return float(frame[~member][column].mean() - frame[member][column].mean())


def recorded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(recorded=frame.repaid == "yes")


def after(frame: pd.DataFrame) -> pd.Series:
    return frame.applied_at >= DRIFT.isoformat()


# --- what the configuration says


def test_shares_of_the_sensitive_groups_are_as_configured(lending):
    frame = lending()
    for column, names, shares in (
        ("sex", population.SEXES, population.SEX_SHARES),
        ("ethnicity", population.ETHNICITIES, population.ETHNICITY_SHARES),
    ):
        assert frame[column].value_counts(normalize=True)[list(names)].to_numpy() == pytest.approx(shares, abs=0.012)


def test_one_intersection_is_tiny(lending):
    share = ((lending().sex == "female") & (lending().ethnicity == "Cendri")).mean()
    assert 0.005 < share < 0.025


def test_the_base_rate_is_as_configured(lending):
    assert lending().truly_repaid.mean() == pytest.approx(0.72, abs=0.01)
    assert lending(base_rate=0.5).truly_repaid.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("wanted", [0.0, 0.15])
def test_the_base_rate_gap_is_as_configured_and_is_no_label_bias(lending, wanted):
    frame = recorded(lending(base_rate_gap=wanted, label_bias=0.0))
    assert gap(frame, "probability") == pytest.approx(wanted, abs=0.012)
    assert gap(frame, "truly_repaid") == pytest.approx(wanted, abs=0.02)
    assert (frame.recorded == frame.truly_repaid).all()


def test_label_bias_changes_the_record_and_not_the_truth(lending):
    fair, biased = (recorded(lending(base_rate_gap=0.0, label_bias=bias)) for bias in (0.0, 0.2))
    assert (fair.truly_repaid == biased.truly_repaid).all()
    assert (fair.probability == biased.probability).all()
    assert gap(biased, "recorded") == pytest.approx(0.2 * 0.72, abs=0.02)
    changed = biased[biased.recorded != biased.truly_repaid]
    assert set(changed.ethnicity) == {"Boreal"}
    assert changed.truly_repaid.all()


def test_region_tells_of_ethnicity_as_much_as_it_is_told_to(lending):
    def association(frame: pd.DataFrame) -> float:
        counts = pd.crosstab(frame.region, frame.ethnicity).to_numpy()
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
        return float(np.sqrt(((counts - expected) ** 2 / expected).sum() / counts.sum() / 2))  # Cramér's V

    weak, default, strong = (association(lending(proxy_strength=s)) for s in (0.0, 0.6, 1.0))
    assert weak < 0.03 < 0.2 < default < strong


# --- the truth


def test_outcomes_agree_with_the_true_probability(lending):
    """In each tenth of the true probability the rate lies within four standard errors of it."""
    frame = recorded(lending(label_bias=0.1))
    for outcome, probability in (("truly_repaid", "probability"), ("recorded", "recorded_probability")):
        for _, tenth in frame.groupby(pd.qcut(frame[probability], 10), observed=True):
            p = tenth[probability]
            error = np.sqrt((p * (1 - p)).sum()) / len(tenth)
            assert abs(tenth[outcome].mean() - p.mean()) < 4 * error


def test_the_best_possible_auc_leaves_room_above_an_honest_model(lending):
    frame = recorded(lending())
    assert 0.84 < auc(frame.recorded, frame.recorded_probability) < 0.88


def test_the_table_does_not_hold_the_truth():
    chunk = next(generate(LendingConfig(rows=10)))
    assert set(chunk.truth.column_names) == {"application_id", "probability", "recorded_probability", "repaid"}
    assert not {"probability", "recorded_probability"} & set(chunk.table.column_names)
    assert chunk.table["application_id"].equals(chunk.truth["application_id"])


def test_words_of_the_purpose_carry_signal(lending):
    frame = lending()
    text = frame.purpose.fillna("")
    assert frame[text.str.contains("savings")].truly_repaid.mean() > 0.8
    assert frame[text.str.contains("promise")].truly_repaid.mean() < 0.63


def test_income_and_score_are_missing_not_at_random(lending):
    frame = lending()
    self_employed = frame.employment == "self-employed"
    assert frame[self_employed].income.isna().mean() > 2 * frame[~self_employed].income.isna().mean()
    assert frame[frame.credit_score.isna()].probability.mean() < frame.probability.mean() - 0.02
    assert frame[frame.income.isna()].probability.mean() < frame.probability.mean() - 0.05


def test_identifiers_and_strings_are_of_high_cardinality(lending):
    frame = lending()
    assert frame.application_id.is_unique
    assert frame.employer.nunique() > 5000
    assert frame.postcode.nunique() > 400
    applications = frame.customer_id.value_counts()
    assert applications.max() >= 4
    assert frame.groupby("customer_id")[["sex", "ethnicity", "region", "employment"]].nunique().max().max() == 1


def test_time_runs_over_eighteen_months_with_seasons(lending):
    frame = lending()
    applied = pd.to_datetime(frame.applied_at, utc=True)
    assert frame.applied_at.str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    assert (str(applied.min())[:10], str(applied.max())[:10]) == ("2023-01-01", "2024-06-30")
    months = applied.dt.strftime("%Y-%m").value_counts()
    assert months["2023-12"] > 1.4 * months["2023-01"]
    assert (applied.dt.dayofweek == 6).mean() < 0.11
    assert applied.dt.hour.between(8, 21).mean() > 0.8


def test_outcomes_become_known_at_180_days_or_when_a_payment_is_missed(lending):
    frame = recorded(lending())
    days = (pd.to_datetime(frame.outcome_known_at) - pd.to_datetime(frame.applied_at)).dt.days
    assert (days[frame.recorded] == 180).all()
    assert days[~frame.recorded].between(30, 180).all()


def test_outcomes_after_the_cut_off_are_null_and_nothing_else_changes(lending):
    full, cut = lending(), lending(label_cutoff=date(2024, 4, 1))
    known = full.outcome_known_at < "2024-04-01"
    assert 0.5 < known.mean() < 0.9
    assert cut[~known][["repaid", "outcome_known_at"]].isna().all().all()
    pd.testing.assert_frame_equal(cut[known], full[known])
    others = [c for c in full if c not in ("repaid", "outcome_known_at")]
    pd.testing.assert_frame_equal(cut[others], full[others])


# --- drift


def test_without_a_switch_nothing_drifts(lending):
    frame = lending()
    late = after(frame)
    assert frame[late].truly_repaid.mean() == pytest.approx(frame[~late].truly_repaid.mean(), abs=0.025)
    assert frame[late].income.median() == pytest.approx(frame[~late].income.median(), rel=0.03)


def test_covariate_drift_moves_the_inputs_from_its_date_on(lending):
    frame = lending(drift_from=DRIFT, covariate_drift=1.0)
    late, plain = after(frame), lending()
    assert frame[late].income.median() < 0.86 * frame[~late].income.median()
    assert (frame[late].channel == "web").mean() > (frame[~late].channel == "web").mean() + 0.2
    columns = ["age", "income", "channel", "amount", "truly_repaid"]
    pd.testing.assert_frame_equal(frame.loc[~late, columns], plain.loc[~late, columns])


def test_prior_drift_moves_the_rate_and_keeps_the_inputs_given_the_outcome(lending):
    frame = lending(rows=100_000, drift_from=DRIFT, prior_drift=-0.2)
    late, plain = after(frame), lending()[after(lending())]
    odds = plain.truly_repaid.mean() / (1 - plain.truly_repaid.mean()) * (0.52 / 0.48) / (0.72 / 0.28)
    assert frame[late].truly_repaid.mean() == pytest.approx(odds / (1 + odds), abs=0.015)
    assert frame[~late].truly_repaid.mean() == pytest.approx(0.72, abs=0.015)
    assert frame[late].probability.mean() == pytest.approx(frame[late].truly_repaid.mean(), abs=0.01)
    assert late.mean() == pytest.approx(after(lending()).mean(), abs=0.01)
    score, plain_score = (f.groupby("truly_repaid").credit_score.mean() for f in (frame[late], plain))
    assert score.to_numpy() == pytest.approx(plain_score.to_numpy(), abs=3)


def test_concept_drift_moves_the_law_and_neither_inputs_nor_rate(lending):
    frame, plain = lending(drift_from=DRIFT, concept_drift=1.0), lending()
    late = after(frame)
    table = [c for c in plain if c not in ("repaid", "outcome_known_at", "truly_repaid") and "probability" not in c]
    pd.testing.assert_frame_equal(frame[table], plain[table])
    assert (frame[~late].probability == plain[~late].probability).all()
    assert frame[late].truly_repaid.mean() == pytest.approx(plain[late].truly_repaid.mean(), abs=0.02)
    stale = auc(frame[late].truly_repaid, plain[late].probability)
    assert stale < auc(plain[late].truly_repaid, plain[late].probability) - 0.03


# --- planted defects


def planted(lending, **defects: float) -> pd.DataFrame:
    return lending(rows=20_000, defects=tuple(defects.items()))


def test_an_unknown_category_appears_in_its_share(lending):
    assert (planted(lending, unknown_category=0.05).housing == "houseboat").mean() == pytest.approx(0.05, abs=0.01)
    assert not (lending(rows=20_000).housing == "houseboat").any()


def test_a_wrong_type_turns_numbers_into_text(lending):
    terms = planted(lending, wrong_type=0.05).term_months
    assert terms.str.endswith(" months").mean() == pytest.approx(0.05, abs=0.01)


def test_an_age_lies_out_of_range(lending):
    assert (planted(lending, out_of_range=0.05).age == 430).mean() == pytest.approx(0.05, abs=0.01)


def test_amounts_turn_negative(lending):
    assert (planted(lending, negative_amount=0.05).amount < 0).mean() == pytest.approx(0.05, abs=0.01)


def test_a_column_is_missing(lending):
    assert "income" not in planted(lending, missing_column=1.0)


def test_rows_are_exact_duplicates(lending):
    columns = list(next(generate(LendingConfig(rows=1))).table.column_names)
    share = planted(lending, duplicated_rows=0.05)[columns].duplicated().mean()
    assert 0.035 < share < 0.055


def test_a_defect_moves_nothing_but_its_own_column(lending):
    plain, broken = lending(rows=20_000), planted(lending, negative_amount=0.05, unknown_category=0.05)
    others = [c for c in plain if c not in ("amount", "housing")]
    pd.testing.assert_frame_equal(plain[others], broken[others])


def test_lines_are_broken_in_their_share(tmp_path):
    write(LendingConfig(rows=20_000, defects={"broken_rows": 0.02}), tmp_path / "loans.csv")
    reasons = []
    options = csv.ParseOptions(invalid_row_handler=lambda row: reasons.append(row.actual_columns) or "skip")
    rows = csv.read_csv(tmp_path / "loans.csv", parse_options=options).num_rows
    assert rows + len(reasons) <= 20_000
    assert len(reasons) / 20_000 == pytest.approx(0.02, abs=0.01)
    assert {count > 22 for count in reasons} == {True, False}


# --- how it is made


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(LendingConfig(rows=3000, seed=seed), tmp_path / name, tmp_path / f"{name}.truth")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.truth").read_bytes() == (tmp_path / "b.truth").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("options", [{}, {"drift_from": DRIFT, "prior_drift": -0.2}])
def test_fewer_rows_are_a_prefix_of_more(lending, options):
    more = BLOCK_ROWS + 5000
    pd.testing.assert_frame_equal(lending(rows=1000, **options), lending(rows=more, **options).head(1000))
    assert len(lending(rows=more, **options)) == more


def test_a_written_table_reads_back_as_generated(tmp_path):
    config = LendingConfig(rows=BLOCK_ROWS + 10)
    write(config, tmp_path / "loans.csv")
    read = csv.read_csv(
        tmp_path / "loans.csv", convert_options=csv.ConvertOptions(strings_can_be_null=True, timestamp_parsers=["%Y"])
    )
    generated = pa.concat_tables([chunk.table for chunk in generate(config)])
    assert read.num_rows == config.rows
    for name in ("application_id", "customer_id", "applied_at", "employer", "purpose", "repaid", "credit_score"):
        assert read[name].to_pylist() == generated[name].to_pylist()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"rows": 0}, "rows must be positive"),
        ({"seed": -1}, "seed must not be negative"),
        ({"label_bias": 1.5}, r"label_bias must lie in \[0, 1\]"),
        ({"base_rate": 0.9, "base_rate_gap": 0.2}, "every group's rate"),
        ({"prior_drift": -0.1}, "a drift needs drift_from"),
        ({"prior_drift": 0.5, "drift_from": DRIFT}, r"base_rate \+ prior_drift"),
        ({"defects": {"typo": 0.1}}, "defects.typo is not one of"),
        ({"defects": {"wrong_type": 2.0}}, "defects.wrong_type must lie in"),
    ],
)
def test_what_cannot_be_is_refused(options, fault):
    with pytest.raises(UsageError, match=fault):
        LendingConfig(**{"rows": 10, **options})


def test_the_command_writes_table_and_truth(tmp_path, capsys):
    arguments = ["--rows", "500", "--seed", "3", "--output", str(tmp_path / "new" / "loans.csv")]
    arguments += ["--truth", str(tmp_path / "truth.csv"), "--defect", "unknown_category=0.5"]
    arguments += ["--label-cutoff", "2024-01-01", "--drift-from", "2023-09-01", "--covariate-drift", "1"]
    assert main(arguments) == 0
    table = pd.read_csv(tmp_path / "new" / "loans.csv")
    assert len(table) == len(pd.read_csv(tmp_path / "truth.csv")) == 500
    assert (table.housing == "houseboat").any()
    assert table.repaid.isna().any()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["loans.csv", "truth.csv"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("defect", ["wrong_type=much", "wrong_type", "nothing=0.1"])
def test_a_mistaken_command_ends_with_the_users_exit_code(tmp_path, capsys, defect):
    assert main(["--rows", "5", "--output", str(tmp_path / "x.csv"), "--defect", defect]) == UsageError.exit_code
    assert "UsageError" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.slow
def test_a_million_rows_need_no_more_memory_than_a_few_blocks_and_no_more_time_than_a_coffee(tmp_path):
    """Measured alone on 2 cores: 150,000 rows/s and more; the bound allows for a busy machine."""
    code = (
        "import re, sys; from pathlib import Path; from tidemill.synthetic.lending import main;"
        "code = main(['--rows', sys.argv[1], '--output', sys.argv[2]]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]); sys.exit(code)"
    )
    peaks = []
    for rows in (200_000, 1_000_000):
        started = time.monotonic()
        result = subprocess.run(
            [sys.executable, "-c", code, str(rows), str(tmp_path / "loans.csv")], capture_output=True, check=True
        )
        peaks.append(int(result.stdout))
        assert rows / (time.monotonic() - started) > 25_000
    assert peaks[1] < 1.25 * peaks[0]
    assert peaks[0] < 500 * 1024
