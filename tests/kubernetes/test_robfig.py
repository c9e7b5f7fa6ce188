"""Schedules against the library that KFP reads them with, github.com/robfig/cron 1.2.0, compiled from Go's proxy."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import kfp_fake_cron
import pytest

from tidemill_pipelines.targets.cron import Cron, to_kfp

NEEDS_REGISTRY = True
_MODULE = """module example.com/times

go 1.21

require github.com/robfig/cron v1.2.0
"""
_SUM = """github.com/robfig/cron v1.2.0 h1:ZjScXvvxeQ63Dbyxy76Fj3AT3Ut0aKsyd2/tl3DTMuQ=
github.com/robfig/cron v1.2.0/go.mod h1:JGuDeoQd7Z6yL4zQhZ3OPEVHB7fL6Ka6skscFHfmt2k=
"""
_PROGRAM = """package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/robfig/cron"
)

type question struct {
	Cron, Zone string
	After      time.Time
	Count      int
}

type answer struct {
	Times []time.Time
	Error string
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := make([]answer, len(questions))
	for i, q := range questions {
		schedule, err := cron.Parse(q.Cron)
		if err != nil {
			answers[i].Error = err.Error()
			continue
		}
		zone, err := time.LoadLocation(q.Zone)
		if err != nil {
			panic(err)
		}
		for t := q.After.In(zone); len(answers[i].Times) < q.Count; {
			if t = schedule.Next(t); t.IsZero() {
				break
			}
			answers[i].Times = append(answers[i].Times, t.UTC())
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
"""


def _without(reason: str) -> None:
    if os.environ.get("TIDEMILL_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def robfig(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Asks the library for the next times of schedules."""
    if shutil.which("go") is None:
        _without("Go is not installed")
    directory = tmp_path_factory.mktemp("robfig")
    for name, text in (("go.mod", _MODULE), ("go.sum", _SUM), ("main.go", _PROGRAM)):
        (directory / name).write_text(text)
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    build = ["go", "build", "-o", "times", "."]
    done = subprocess.run(build, cwd=directory, env=environment, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        _without(f"Go's module proxy is not reachable: {done.stderr[-300:]}")

    def ask(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        command = [str(Path(directory) / "times")]
        done = subprocess.run(command, input=json.dumps(questions), capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    return ask


def some_cron(chance: random.Random) -> Cron:
    def some(low: int, high: int) -> frozenset[int]:
        everything = range(low, high + 1)
        return frozenset(everything if chance.random() < 0.3 else chance.sample(everything, chance.randint(1, 4)))

    days, weekdays = (some(low, high) if chance.random() < 0.4 else None for low, high in ((1, 28), (0, 6)))
    return Cron(some(0, 59), some(0, 23), days, some(1, 12), weekdays)


def test_next_times_are_those_of_the_library_summer_time_included(robfig: Any) -> None:
    chance = random.Random(20260101)
    nights = [datetime(2026, 3, 28, 20, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC)]
    asked, expected = [], []
    for number in range(400):
        cron = some_cron(chance)
        if number % 2:  # the hours at which clocks change
            cron = Cron(cron.minutes, frozenset({1, 2, 3}), None, frozenset(range(1, 13)), None)
        zone = ZoneInfo(chance.choice(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]))
        after = chance.choice(nights) if number % 2 else nights[0] + timedelta(minutes=chance.randint(0, 500_000))
        wire = to_kfp(cron, zone, zone, after, None)
        asked.append({"Cron": wire, "Zone": zone.key, "After": after.isoformat(), "Count": 8})
        expected.append([time.astimezone(UTC) for time in islice(cron.times(after, zone), 8)])
    for question, answer, times in zip(asked, robfig(asked), expected, strict=True):
        assert [datetime.fromisoformat(t) for t in answer["Times"] or []] == times, question


def test_the_fake_takes_and_refuses_what_the_library_does(robfig: Any) -> None:
    texts = [
        *("0 3 * * *", "0 0 3 * * *", "0 0 3 ? * MON-fri", "*/20 0-5/2 3,4 1 jan *", "@daily", "@hourly", "@often"),
        *("", "0 3 * *", "0 0 3 * * * *", "60 0 3 * * *", "0 0 3 0 * *", "0 5-1 3 * * *", "0 */0 3 * * *"),
        *("x 0 3 * * *", "0 0 3 * * 7", "1-2-3 0 3 * * *", "1/2/3 0 3 * * *", "0 0 3 * 13 *", "0 0 3 31 2 *"),
    ]
    asked = [{"Cron": text, "Zone": "UTC", "After": "2026-01-01T00:00:00Z", "Count": 1} for text in texts]
    for text, answer in zip(texts, robfig(asked), strict=True):
        assert refusal(text)[:12] == answer["Error"][:12], text


def refusal(text: str) -> str:
    try:
        kfp_fake_cron.parse(text)
    except ValueError as error:
        return str(error)
    return ""
