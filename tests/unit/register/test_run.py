"""Only a model that passed its gates gets a version, and the version says where it came from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, GateRefused
from tidemill.files import digest_tree, sha256_file
from tidemill.lineage import installed_digest
from tidemill.register.run import find_champion, run
from tidemill.serving.registry import Registry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def test_a_model_that_passed_becomes_the_challenger_with_its_lineage(first: Any, root: Path) -> None:
    report = run(**first.arguments(root, "run-1"))
    registry, digest = Registry(root, "toy"), ModelManifest.read(first.root / "model").digest
    assert (report.name, report.version, report.digest) == ("toy", 1, digest)
    assert (registry.aliases().challenger, registry.aliases().champion) == (1, None)
    registered = json.loads((first.root / "registered" / "registered.json").read_text())
    assert registered == {**vars(report), "run_id": "run-1"}
    lineage = json.loads(registry.extra(1, "lineage.json").read_text())
    assert lineage["version"] == 1
    assert lineage["run_id"] == "run-1"
    assert lineage["bundle"] == first.bundle.stem
    assert lineage["examples"]["source"] == {"uri": "people.csv", "fingerprint": "cafe", "rows": 10}
    assert lineage["examples"]["files"] == {"test/part-00000.parquet": "f00d"}
    assert lineage["artifacts"]["schema"] == digest_tree(first.root / "schema")
    assert lineage["decisions"]["blessing"]["passed"]
    assert lineage["model"]["transform_graph"] == "t"
    assert lineage["model"]["digest"] == digest
    assert lineage["environment"] == {"lock": "10cc", "commit": "c0ffee", "installed": installed_digest()}
    assert lineage["examples"]["manifest"] == sha256_file(first.root / "examples" / "manifest.json")
    for name in ("statistics", "schema", "evaluation", "blessing", "rehearsal"):
        assert digest_tree(registry.extra(1, name)) == digest_tree(first.root / name)
    assert json.loads(registry.extra(1, "sample.json").read_text())["instance"] == {"age": 1.0}


def test_a_retried_step_registers_nothing_new(first: Any, root: Path) -> None:
    once = run(**first.arguments(root, "run-1"))
    before = digest_tree(root)
    assert run(**first.arguments(root, "run-1")) == once
    assert digest_tree(root) == before


@pytest.mark.parametrize("evidence", ["blessing", "rehearsal"])
def test_a_model_that_was_refused_gets_no_version(first: Any, root: Path, evidence: str) -> None:
    first.judge(evidence, passed=False)
    with pytest.raises(GateRefused, match=f"the {evidence} must have passed\n  - auc is 0.8"):
        run(**first.arguments(root, "run-1"))
    assert not root.exists()


@pytest.mark.parametrize("evidence", ["blessing", "rehearsal"])
def test_evidence_for_another_model_counts_for_nothing(first: Any, root: Path, evidence: str) -> None:
    first.judge(evidence, digest="0" * 64)
    with pytest.raises(GateRefused, match=f"the {evidence} must be of this model"):
        run(**first.arguments(root, "run-1"))
    assert not root.exists()


def test_a_model_that_changed_after_it_was_judged_gets_no_version(first: Any, root: Path) -> None:
    (first.root / "model" / "saved_model" / "saved_model.pb").write_text("something else")
    with pytest.raises(DataError, match=r"must be what model\.json has the digest of"):
        run(**first.arguments(root, "run-1"))
    assert not root.exists()


def test_without_a_champion_the_outputs_are_empty(first: Any, root: Path, tmp_path: Path) -> None:
    run(**first.arguments(root, "run-1"))
    report = find_champion(first.bundle, root, tmp_path / "champion", tmp_path / "reference")
    assert (report.model, report.version) == ("toy", None)
    assert list((tmp_path / "champion").iterdir()) == list((tmp_path / "reference").iterdir()) == []


def test_the_champion_comes_as_the_artefact_it_was_with_its_statistics(
    first: Any, second: Any, root: Path, tmp_path: Path
) -> None:
    run(**first.arguments(root, "run-1"))
    Registry(root, "toy").promote(1)
    run(**second.arguments(root, "run-2"))
    report = find_champion(str(second.bundle), str(root), tmp_path / "champion", tmp_path / "reference")
    assert report.version == 1
    assert digest_tree(tmp_path / "champion") == digest_tree(first.root / "model")
    assert digest_tree(tmp_path / "reference") == digest_tree(first.root / "statistics")
    inode = (tmp_path / "champion" / "saved_model" / "saved_model.pb").stat().st_ino
    assert inode == (root / "toy" / "1" / "saved_model.pb").stat().st_ino


def test_the_champion_is_copied_where_links_cannot_be_made(
    first: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(**first.arguments(root, "run-1"))
    Registry(root, "toy").promote(1)

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    find_champion(first.bundle, root, tmp_path / "champion", tmp_path / "reference")
    assert digest_tree(tmp_path / "champion") == digest_tree(first.root / "model")


def test_the_registry_does_not_depend_on_the_artefacts_it_was_filled_from(first: Any, root: Path) -> None:
    run(**first.arguments(root, "run-1"))
    before = digest_tree(root)
    shutil.rmtree(first.root)
    assert digest_tree(root) == before
