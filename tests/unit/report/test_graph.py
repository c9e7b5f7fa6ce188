"""The DAG is read from the compiled pipeline and laid out without overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kfp import compiler

from tidemill.report.graph import chain, edges_of, layout, ordered, reduced
from tidemill_pipelines.pipelines import load_pipeline

BOX = (100.0, 40.0)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    path = tmp_path_factory.mktemp("pipeline") / "training.yaml"
    compiler.Compiler().compile(load_pipeline("training"), str(path))
    document: Mapping[str, Any] = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return document


def test_the_training_pipeline_is_read_from_its_compiled_form(compiled: Mapping[str, Any]) -> None:
    edges = edges_of(compiled)
    assert {"find-champion", "ingest", "validate", "data-gate", "serving-gate", "deploy", "report"} <= set(edges)
    assert not any("importer" in name for name in edges)
    assert set(edges["evaluate"]) >= {"ingest", "train", "find-champion"}


def test_only_edges_that_no_longer_path_implies_are_left(compiled: Mapping[str, Any]) -> None:
    edges = reduced(edges_of(compiled))
    assert edges["validate"] == ("find-champion", "ingest")
    assert edges["transform"] == ("data-gate",)
    assert edges["register"] == ("serving-gate",)
    assert edges["report"] == ("deploy",)  # the exit task comes after the last of the nested DAG


def test_a_chain_stands_in_where_only_the_order_is_known() -> None:
    assert chain(["a", "b", "c"]) == {"a": (), "b": ("a",), "c": ("b",)}


def test_a_cycle_is_an_error() -> None:
    with pytest.raises(ValueError, match="cycle among a, b"):
        ordered({"a": ("b",), "b": ("a",)})


dags = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.sets(st.integers(0, max(i - 1, 0))) for i in range(n)]).map(
        lambda befores: {f"t{i}": tuple(f"t{b}" for b in sorted(bs) if b < i) for i, bs in enumerate(befores)}
    )
)


def _reachable(edges: Mapping[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    pairs: set[tuple[str, str]] = set()
    for name in ordered(edges):
        for before in edges[name]:
            pairs |= {(before, name)} | {(first, name) for first, last in pairs if last == before}
    return pairs


@given(dags)
def test_reduction_changes_no_order(edges: dict[str, tuple[str, ...]]) -> None:
    assert _reachable(reduced(edges)) == _reachable(edges)


@given(dags, st.integers(1, 6))
def test_tasks_never_overlap_and_lie_in_the_picture(edges: dict[str, tuple[str, ...]], columns: int) -> None:
    placed = layout(reduced(edges), columns, BOX)
    slots = list(placed.slots.values())
    assert set(placed.slots) == set(edges)
    for i, a in enumerate(slots):
        assert a.x >= 0
        assert a.x + a.width <= placed.width
        assert a.y >= 0
        assert a.y + a.height <= placed.height
        for b in slots[i + 1 :]:
            apart = abs(a.x - b.x) >= BOX[0] or abs(a.y - b.y) >= BOX[1]
            assert apart


@given(dags)
def test_in_one_row_what_waits_stands_to_the_right(edges: dict[str, tuple[str, ...]]) -> None:
    placed = layout(edges, 99, BOX)
    assert all(placed.slots[b].x < placed.slots[name].x for name, befores in edges.items() for b in befores)
    assert len(placed.paths) >= sum(map(len, edges.values()))


def test_layers_that_do_not_fit_go_on_in_the_next_row_evenly() -> None:
    placed = layout(chain([f"t{i}" for i in range(12)]), 9, BOX)
    rows = [slot.row for slot in placed.slots.values()]
    assert rows == [0] * 6 + [1] * 6
