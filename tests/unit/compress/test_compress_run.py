"""The stage as a whole: every kind of variant, made, measured on the same rows, judged and released."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.compress.networks import LiteRTNetwork, OnnxNetwork, SavedNetwork
from tidemill.compress.run import run
from tidemill.decisions import read_decision
from tidemill.errors import GateRefused, ProblemError
from tidemill.evaluate.run import run as evaluate
from tidemill.files import digest_tree
from tidemill.gate.run import run as gate
from tidemill.network import read_weights

VARIANTS: dict[str, Any] = {
    "plain": {"kind": "litert", "quantization": "none"},
    "half": {"kind": "litert", "quantization": "float16"},
    "dynamic": {"kind": "litert", "quantization": "dynamic"},
    "mobile": {"kind": "litert", "quantization": "int8"},
    "edge": {"kind": "onnx"},
    "sparse": {"kind": "pruned", "sparsity": 0.7, "epochs": 3, "every_steps": 4},
    "small": {"kind": "distilled", "hidden_units": [4], "embedding_dimensions": 2, "epochs": 3},
}


@pytest.fixture(scope="module")
def done(project, tmp_path_factory):
    """Returns the paths and the report of a run with a variant of every kind, of which the pruned one is released."""
    limits = {"metrics": [{"metric": "auc", "max_worse": 0.2}], "max_latency_ratio": 100.0}
    settings = {"variants": VARIANTS, "limits": limits, "release": "sparse"}
    paths = project.arguments(tmp_path_factory.mktemp("compress"), settings)
    return paths, run(**paths)


@pytest.fixture(scope="module")
def manifest(done):
    return json.loads((done[0]["compressed"] / "manifest.json").read_text())


def whole(model: dict[str, Any], metric: str) -> dict[str, Any]:
    return next(part for part in model["metrics"] if not part["slice"])["values"][metric]


def test_every_variant_is_there_with_its_figures(done, manifest):
    paths, report = done
    assert set(manifest["models"]) == {"original", *VARIANTS}
    assert set(report.variants) == set(VARIANTS)
    assert (report.rows, report.released, report.passed, report.refusals) == (601, "sparse", True, ())
    for name, model in manifest["models"].items():
        assert model["gzip_bytes"] > 0
        assert model["latency"].keys() == {"1", "256"}
        assert all(0 < size["p50_ms"] <= size["p99_ms"] for size in model["latency"].values())
        assert whole(model, "auc")["value"] > 0.5
        if name != "original":
            assert model["content"] == digest_tree(paths["compressed"] / name)


def test_the_originals_metrics_are_those_of_the_evaluation_intervals_included(project, manifest, tmp_path):
    outputs = {name: tmp_path / name for name in ("evaluation", "blessing", "predictions")}
    evaluate(project.bundle(), project.examples, project.model, tmp_path / "none", **outputs)
    evaluated = json.loads((outputs["evaluation"] / "metrics.json").read_text())
    found = manifest["models"]["original"]["metrics"]
    assert [part["slice"] for part in found] == [part["slice"] for part in evaluated["metrics"]]
    for ours, theirs in zip(found, evaluated["metrics"], strict=True):
        for metric, value in theirs["values"].items():
            # One graph may round otherwise than the other, which moves a row by one of ten thousand thresholds.
            assert ours["values"][metric] == pytest.approx(value, abs=2e-4), (ours["slice"], metric)


def test_a_change_is_the_difference_of_two_values_with_an_interval_around_it(manifest):
    for name in VARIANTS:
        for part in manifest["models"][name]["metrics"]:
            auc = part["values"]["auc"]
            if auc["value"] is not None and auc["original"] is not None:
                assert auc["change"]["difference"] == pytest.approx(auc["value"] - auc["original"], abs=1e-12)
                if auc["change"]["low"] is not None:
                    assert auc["change"]["low"] <= auc["change"]["difference"] <= auc["change"]["high"]


def test_groups_have_their_rates_and_counts_beside_the_originals(manifest):
    rows = sum(group["count"] for group in manifest["models"]["mobile"]["fairness"][0]["groups"])
    assert rows == 601
    changed = manifest["models"]["small"]["fairness"][0]
    assert changed["over"] == ["1st color"]
    gap = changed["metrics"]["demographic_parity_gap"]
    assert gap["difference"] == pytest.approx(gap["value"] - gap["original"])
    assert gap["low"] < gap["difference"] < gap["high"]
    rate = changed["groups"][0]["rates"]["selection_rate"]
    assert rate["difference"] == pytest.approx(rate["value"] - rate["original"])


def test_files_that_keep_float32_answer_as_the_model_does(project, original, done):
    directory = done[0]["compressed"]
    features = original.transform(project.test_rows().combine_chunks().to_batches()[0])
    expected = original.answer(features)
    plain = LiteRTNetwork((directory / "plain" / "model.tflite").read_bytes(), original.inputs)
    edge = OnnxNetwork((directory / "edge" / "model.onnx").read_bytes(), original.inputs)
    np.testing.assert_allclose(plain.answer(features), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(edge.answer(features), expected, rtol=0, atol=1e-6)
    for name, tolerance in (("half", 1e-3), ("dynamic", 0.02), ("mobile", 0.03)):
        network = LiteRTNetwork((directory / name / "model.tflite").read_bytes(), original.inputs)
        found = network.answer(features)
        assert np.abs(found - expected).mean() < tolerance, name
        assert (found != expected).any(), f"{name} changes nothing"


def test_int8_is_near_the_model_for_every_row_though_bags_of_words_are_divided_by_their_number(project, original, done):
    """LiteRT's own division in int8 is off by so much that it moves probabilities by 0.4 here."""
    features = original.transform(project.test_rows().combine_chunks().to_batches()[0])
    network = LiteRTNetwork((done[0]["compressed"] / "mobile" / "model.tflite").read_bytes(), original.inputs)
    assert np.abs(network.answer(features) - original.answer(features)).max() < 0.1


def test_a_batch_of_one_is_answered_as_in_a_larger_one(project, original, done):
    content = (done[0]["compressed"] / "mobile" / "model.tflite").read_bytes()
    network = LiteRTNetwork(content, original.inputs)
    features = original.transform(project.test_rows().slice(0, 8).combine_chunks().to_batches()[0])
    together = network.answer(features)
    each = [network.answer({name: value[i : i + 1] for name, value in features.items()}) for i in range(8)]
    np.testing.assert_allclose(np.concatenate(each), together, atol=1e-6)


def test_the_pruned_network_has_its_zeros_and_is_smaller_only_gzipped(project, done, manifest):
    weights = read_weights(done[0]["compressed"] / "sparse")
    kernels = {path: value for path, value in weights if value.ndim > 1}
    for path, value in kernels.items():
        assert (value == 0).sum() >= round(0.7 * value.size), path
    assert [path for path, _ in weights] == [path for path, _ in read_weights(project.model)]
    sparse, original = manifest["models"]["sparse"], manifest["models"]["original"]
    assert sparse["sparsity"] >= 0.69
    assert sparse["file_bytes"] == original["file_bytes"]
    assert sparse["gzip_bytes"] < 0.6 * original["gzip_bytes"]


def test_the_distilled_network_is_smaller_and_says_who_taught_it(manifest):
    small = manifest["models"]["small"]
    assert small["file_bytes"] < manifest["models"]["original"]["file_bytes"]
    assert (small["teacher"], small["teacher_reason"]) == ("trained", "no champion yet")
    assert small["teacher_digest"] == manifest["models"]["original"]["digest"]


def test_the_released_variant_is_a_whole_model_that_takes_raw_rows(project, done):
    paths, _ = done
    released = ModelManifest.read(paths["released"])
    trained = ModelManifest.read(project.model)
    assert released.signatures == trained.signatures
    assert (released.inputs, released.outputs, released.classes) == (trained.inputs, trained.outputs, trained.classes)
    assert released.digest == digest_tree(paths["released"] / "saved_model") != trained.digest
    assert released.lineage["compressed_from"] == trained.digest
    assert digest_tree(paths["released"]) == digest_tree(paths["compressed"] / "sparse")
    batch = project.test_rows().combine_chunks().to_batches()[0]
    SavedNetwork(paths["released"]).check(batch, "probability")


def test_the_evidence_is_of_the_released_model_and_the_gate_lets_it_pass(done):
    paths, _ = done
    evidence = json.loads((paths["compression"] / "compression.json").read_text())
    assert evidence["challenger"] == ModelManifest.read(paths["released"]).digest
    assert gate(paths["compression"]).gate == "compression"


def test_a_run_again_gives_the_same_networks(project, done, tmp_path):
    """Of training too; a new try after a kill goes on from the checkpoints and ends there as well."""
    settings = {"variants": {name: VARIANTS[name] for name in ("sparse", "small")}}
    again = project.arguments(tmp_path, settings)
    run(**again)
    for name in ("sparse", "small"):
        for (path, first), (_, second) in zip(
            read_weights(done[0]["compressed"] / name), read_weights(again["compressed"] / name), strict=True
        ):
            np.testing.assert_array_equal(first, second, err_msg=path)
    assert not any(again["released"].iterdir())


def test_a_variant_beyond_its_limit_is_refused_by_the_gate_with_exit_code_3(project, tmp_path):
    limits = {"max_bytes": 10}
    strict = {"variants": {"half": VARIANTS["half"]}, "limits": limits}
    paths = project.arguments(tmp_path, strict)
    report = run(**paths)
    assert not report.passed
    assert not report.variants["half"].passed
    with pytest.raises(GateRefused, match=r"Variant half has [\d,]+ bytes, gzipped; at most 10 are allowed") as refused:
        gate(paths["compression"])
    assert refused.value.exit_code == 3


def test_a_variant_that_is_not_required_only_warns(project, tmp_path):
    variant = {**VARIANTS["half"], "required": False, "limits": {"max_bytes": 10}}
    paths = project.arguments(tmp_path, {"variants": {"half": variant}})
    assert run(**paths).passed
    (warning,) = read_decision(paths["compression"]).warnings
    assert warning.name == "gzip_bytes.half"
    written = json.loads((paths["compressed"] / "manifest.json").read_text())
    assert written["models"]["half"]["passed"] is False


def test_a_problem_without_compression_is_told_so(project, tmp_path):
    with pytest.raises(ProblemError, match=r"problem\.yaml: needs `compression` for this stage"):
        run(**project.arguments(tmp_path, None))


@pytest.mark.parametrize("task", ["multiclass_classification", "regression"])
def test_other_tasks_have_variants_too(project_of, tmp_path, task):
    project = project_of(task)
    metric = "rmse" if task == "regression" else "accuracy"
    settings = {
        "variants": {name: VARIANTS[name] for name in ("half", "edge", "small")},
        "limits": {"metrics": [{"metric": metric, "max_worse": 1e6}]},
        "release": "small",
    }
    paths = project.arguments(tmp_path, settings)
    assert run(**paths).passed
    models = json.loads((paths["compressed"] / "manifest.json").read_text())["models"]
    assert abs(whole(models["edge"], metric)["change"]["difference"]) < 1e-3
    assert whole(models["small"], metric)["value"] is not None
    assert models["small"]["fairness"] == []
    score = {"regression": "value"}.get(task, "probabilities")
    SavedNetwork(paths["released"]).check(project.test_rows().combine_chunks().to_batches()[0], score)
