"""Loan applications with a known truth: ``python -m tidemill.synthetic.lending --rows 60000 --output loans.csv``.

A lender records for each application whether the loan was repaid on time. The table holds what a lender would
know; the true P(repaid | application) goes into a file of its own. Base-rate gap (the groups truly differ) and label
bias (they don't, but the record says so) are set apart; so are covariate, prior and concept drift. Rows come in
blocks of a fixed size, each with its own random streams: the same seed gives the same rows however many are
asked for, and memory stays that of a few blocks. Needs numpy and pyarrow (the `tensorflow` environment).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from tidemill.errors import TidemillError, UsageError
from tidemill.synthetic import population as p
from tidemill.synthetic import words
from tidemill.synthetic.defects import DEFECTS, break_lines, plant
from tidemill.synthetic.outcome import Truth, make_truth, sigmoid

BLOCK_ROWS: Final = 16_384
_ROUNDS: Final = 64  # upper bound on the draws that fill one block
_DAY: Final = 86_400
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class LendingConfig:
    """What the data are to be like.

    Attributes:
        rows: number of applications.
        seed: of everything that is drawn.
        base_rate: true share of repaid loans.
        base_rate_gap: true rate of the others minus that of the disadvantaged group.
        label_bias: share of the disadvantaged group's repaid loans that is recorded as not repaid.
        proxy_strength: how much region tells of ethnicity, from 0 to 1.
        label_cutoff: day of extraction: outcomes that became known later are null.
        drift_from: day from which the three drifts act.
        covariate_drift: strength of a change in P(x) alone; 1 is strong.
        prior_drift: change of P(y) with P(x | y) kept: the odds move as by a change of ``base_rate`` by this much.
        concept_drift: strength of a change in P(y | x) alone; 1 is strong.
        defects: share of rows by the names of ``DEFECTS``.
    """

    rows: int
    seed: int = 0
    base_rate: float = 0.72
    base_rate_gap: float = 0.06
    label_bias: float = 0.03
    proxy_strength: float = 0.6
    label_cutoff: date | None = None
    drift_from: date | None = None
    covariate_drift: float = 0.0
    prior_drift: float = 0.0
    concept_drift: float = 0.0
    defects: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("base_rate", "label_bias", "proxy_strength", "concept_drift")}
        shares |= {f"defects.{name}": share for name, share in self.defects.items()}
        faults = [f"{name} must lie in [0, 1], not {share:g}" for name, share in shares.items() if not 0 <= share <= 1]
        faults += [f"defects.{name} is not one of {', '.join(DEFECTS)}" for name in set(self.defects) - set(DEFECTS)]
        if self.seed < 0:
            faults.append(f"seed must not be negative, not {self.seed}")
        if self.rows < 1:
            faults.append(f"rows must be positive, not {self.rows}")
        if not 0.05 <= self.base_rate - abs(self.base_rate_gap) <= self.base_rate + abs(self.base_rate_gap) <= 0.95:
            faults.append("base_rate and base_rate_gap must leave every group's rate in [0.05, 0.95]")
        if not 0.05 <= self.base_rate + self.prior_drift <= 0.95:
            faults.append("base_rate + prior_drift must lie in [0.05, 0.95]")
        if self.drift_from is None and (self.covariate_drift or self.prior_drift or self.concept_drift):
            faults.append("a drift needs drift_from, the day on which it sets in")
        if faults:
            raise UsageError("lending", "; ".join(faults))

    @property
    def drift_day(self) -> np.datetime64:
        """The first day of drift, or one after all the data."""
        return np.datetime64(self.drift_from or p.FIRST_DAY + p.DAYS, "D")


@dataclass(frozen=True)
class Chunk:
    """Rows that belong together.

    Attributes:
        table: what a lender would know.
        truth: ``application_id``, ``probability`` (true P of repayment), ``recorded_probability`` (P that the record
            says so, label bias included) and ``repaid`` (what truly happened).
    """

    table: pa.Table
    truth: pa.Table


def generate(config: LendingConfig) -> Iterator[Chunk]:
    """Yields the rows in blocks of at most ``BLOCK_ROWS``; fewer rows are always a prefix of more."""
    truth = make_truth(config.base_rate, config.base_rate_gap, config.proxy_strength, config.concept_drift)
    for block, first in enumerate(range(0, config.rows, BLOCK_ROWS)):
        chunk = _block(config, truth, block)
        rows = min(BLOCK_ROWS, config.rows - first)
        yield Chunk(chunk.table.slice(0, rows), chunk.truth.slice(0, rows))


def write(config: LendingConfig, output: Path, truth: Path | None = None) -> None:
    """Writes the table as CSV, and the truth beside it if asked to.

    The files are streamed and appear under their names only when they are whole.
    """
    with contextlib.ExitStack() as stack:
        table_file = stack.enter_context(_whole_file(output))
        truth_file = stack.enter_context(_whole_file(truth)) if truth else None
        for block, chunk in enumerate(generate(config)):
            options = csv.WriteOptions(include_header=block == 0)
            table_file.write(_csv(config, chunk.table, block, options))
            if truth_file:
                csv.write_csv(chunk.truth, truth_file, options)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _csv(config: LendingConfig, table: pa.Table, block: int, options: csv.WriteOptions) -> bytes:
    buffer = pa.BufferOutputStream()
    csv.write_csv(table, buffer, options)
    text: bytes = buffer.getvalue().to_pybytes()
    share = config.defects.get("broken_rows", 0.0)
    if not share:
        return text
    header, newline, rows = text.partition(b"\n") if block == 0 else (b"", b"", text)
    return header + newline + break_lines(rows, share, _stream(config, block, "broken_rows"))


def _stream(config: LendingConfig, block: int, purpose: str, attempt: int = 0) -> np.random.Generator:
    """Random numbers for one purpose in one block: a switch that draws more must not move anything else."""
    return np.random.default_rng([config.seed, block, attempt, zlib.crc32(purpose.encode())])


def _block(config: LendingConfig, truth: Truth, block: int) -> Chunk:
    drawn = [_draw(config, truth, block, 0)]
    while sum(len(outcomes.happened) for outcomes in drawn) < BLOCK_ROWS:
        drawn.append(_draw(config, truth, block, len(drawn)))
    applications = p.concatenate([outcomes.applications for outcomes in drawn]).take(np.arange(BLOCK_ROWS))
    probability = np.concatenate([outcomes.probability for outcomes in drawn])[:BLOCK_ROWS]
    happened = np.concatenate([outcomes.happened for outcomes in drawn])[:BLOCK_ROWS]
    denied = (applications.ethnicity == p.DISADVANTAGED) * config.label_bias
    recorded = happened & (_stream(config, block, "bias").random(BLOCK_ROWS) >= denied)
    ids = block * BLOCK_ROWS + np.arange(1, BLOCK_ROWS + 1)
    table = _table(applications, recorded, ids, config, block)
    table = plant(table, config.defects, lambda name: _stream(config, block, name))
    return Chunk(
        table,
        pa.table(
            {
                "application_id": ids,
                "probability": probability,
                "recorded_probability": probability * (1 - denied),
                "repaid": happened,
            }
        ),
    )


@dataclass(frozen=True)
class _Outcomes:
    applications: p.Applications
    probability: np.ndarray
    happened: np.ndarray


def _draw(config: LendingConfig, truth: Truth, block: int, attempt: int) -> _Outcomes:
    """Draws applications and outcomes; with prior drift, by rejection, fewer than a block."""
    rng = _stream(config, block, "population", attempt)
    first_customer = (block * _ROUNDS + attempt) * BLOCK_ROWS
    applications = p.draw(
        rng, BLOCK_ROWS, first_customer, config.proxy_strength, config.drift_day, config.covariate_drift
    )
    drifted = p.since(applications.applied, config.drift_day)
    probability = truth.probability(applications, drifted)
    happened = _stream(config, block, "outcome", attempt).random(BLOCK_ROWS) < probability
    if not config.prior_drift:
        return _Outcomes(applications, probability, happened)
    # Label shift: keep outcomes in proportion to the new prior over the old, whatever x. Bayes' rule moves the logit.
    rate, new = config.base_rate, config.base_rate + config.prior_drift
    odds = np.array([(1 - new) / (1 - rate), new / rate])
    accepted = odds / odds.max()
    before = accepted @ [1 - rate, rate]  # rows before the drift are thinned alike, or the calendar would change
    keep = _stream(config, block, "prior", attempt).random(BLOCK_ROWS) < np.where(
        drifted, accepted[happened.astype(int)], before
    )
    shifted = sigmoid(np.log(probability / (1 - probability)) + np.log(odds[1] / odds[0]))
    probability = np.where(drifted, shifted, probability)
    return _Outcomes(applications.take(keep), probability[keep], happened[keep])


def _table(a: p.Applications, repaid: np.ndarray, ids: np.ndarray, config: LendingConfig, block: int) -> pa.Table:
    rng = _stream(config, block, "missing")
    jobless = a.employment >= p.EMPLOYMENT.index("retired")
    return pa.table(
        {
            "application_id": ids,
            "customer_id": _numbered("C", a.customer, 9),
            "applied_at": _iso8601(a.applied),
            "age": a.age,
            "sex": _named(p.SEXES, a.sex),
            "ethnicity": _named(p.ETHNICITIES, a.ethnicity),
            "region": _named(p.REGIONS, a.region),
            "postcode": _numbered("P", (a.region + 1) * 100 + a.district, 4),
            "employment": _named(p.EMPLOYMENT, a.employment),
            "employer": _named(words.employers().values, a.employer, missing=jobless | (rng.random(len(a)) < 0.03)),
            "months_at_job": pa.array(a.months_at_job, mask=jobless),
            "housing": _named(p.HOUSING, a.housing, missing=rng.random(len(a)) < 0.02),
            "income": pa.array(a.income, mask=_hidden_income(a, rng)),
            "credit_score": pa.array(a.credit_score, mask=_thin_file(a, rng)),
            "delinquencies": a.delinquencies,
            "channel": _named(p.CHANNELS, a.channel),
            "branch": _named(words.branches().values, a.branch),
            "amount": a.amount,
            "term_months": a.term,
            "purpose": _named(words.purposes().values, a.purpose, missing=rng.random(len(a)) < 0.05),
            **_labels(a, repaid, config, _stream(config, block, "delay")),
        }
    )


def _hidden_income(a: p.Applications, rng: np.random.Generator) -> np.ndarray:
    """Missing not at random: the lower the income, and for the self-employed, the oftener it isn't stated."""
    self_employed = a.employment == p.EMPLOYMENT.index("self-employed")
    return rng.random(len(a)) < sigmoid(-3.2 + 1.6 * self_employed - 1.2 * (np.log(a.income) - 10.4))


def _thin_file(a: p.Applications, rng: np.random.Generator) -> np.ndarray:
    """Missing not at random: the young and those with a low score often have none on file."""
    return rng.random(len(a)) < sigmoid(-2.9 + 1.5 * (a.age < 26) - 0.6 * (a.credit_score - 640) / 75)


def _labels(a: p.Applications, repaid: np.ndarray, config: LendingConfig, rng: np.random.Generator) -> dict:
    """The label, and when it became known: at 180 days, or at the missed instalment that decided it."""
    days = np.where(repaid, 180, 30 + np.floor(150 * rng.beta(1.6, 1.8, len(a))).astype(np.int64))
    known_at = a.applied + days * _DAY
    cutoff = config.label_cutoff
    unknown = known_at >= np.datetime64(cutoff, "s").astype(np.int64) if cutoff else np.zeros(len(a), dtype=bool)
    return {
        "outcome_known_at": pc.if_else(pa.array(unknown), pa.scalar(None, pa.string()), _iso8601(known_at)),
        "repaid": _named(("no", "yes"), repaid.astype(int), missing=unknown),
    }


def _named(names: Sequence[str], codes: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(codes, mask=missing))


def _numbered(prefix: str, numbers: np.ndarray, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _iso8601(epoch_s: np.ndarray) -> pa.Array:
    return pc.strftime(pa.array(epoch_s).cast(pa.timestamp("s")), _TIME_FORMAT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tidemill.synthetic.lending", description=__doc__.split("\n")[0])
    default = LendingConfig(rows=1)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--output", type=Path, required=True, help="the table, as CSV")
    parser.add_argument("--truth", type=Path, help="the true probabilities by application_id, as CSV")
    for name, text in {
        "base-rate": "true share of repaid loans",
        "base-rate-gap": "true rate of the others minus that of the disadvantaged group",
        "label-bias": "share of that group's repaid loans recorded as not repaid",
        "proxy-strength": "how much region tells of ethnicity, 0 to 1",
        "covariate-drift": "strength of a change in P(x); 1 is strong",
        "prior-drift": "change of P(y), as of the base rate by so much; such as -0.1",
        "concept-drift": "strength of a change in P(y|x), 0 to 1",
    }.items():
        parser.add_argument(f"--{name}", type=float, default=getattr(default, name.replace("-", "_")), help=text)
    parser.add_argument("--drift-from", type=date.fromisoformat, metavar="DATE", help="day on which drift sets in")
    parser.add_argument(
        "--label-cutoff", type=date.fromisoformat, metavar="DATE", help="leave out outcomes that were known later"
    )
    parser.add_argument(
        "--defect",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help=f"plant a fault in a share of the rows; NAME is one of {', '.join(DEFECTS)}",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    options = vars(_parser().parse_args(arguments))
    output, truth, planted = options.pop("output"), options.pop("truth"), options.pop("defect")
    try:
        config = replace(LendingConfig(**options), defects=dict(_share(text) for text in planted))
        write(config, output, truth)
    except TidemillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise UsageError("--defect", "NAME=SHARE, such as wrong_type=0.01", repr(text)) from None


if __name__ == "__main__":
    sys.exit(main())
