"""Manifests read back as written."""

from __future__ import annotations

from tidemill.artifacts import ExamplesManifest, ModelManifest, parts


def test_an_examples_manifest_reads_back_as_written(tmp_path):
    manifest = ExamplesManifest(
        rows={"train": 8, "eval": 1, "test": 1},
        columns={"age": "int64"},
        classes=("no", "yes"),
        files={"train/part-00000.parquet": {"rows": 8, "bytes": 10, "sha256": "ab"}},
        source={"uri": "t.csv", "fingerprint": "cd", "rows": 10},
        duplicates=1,
        quarantined=2,
    )
    manifest.write(tmp_path)
    assert ExamplesManifest.read(tmp_path) == manifest


def test_a_model_manifest_reads_back_as_written(tmp_path):
    manifest = ModelManifest(
        name="loans",
        task="binary_classification",
        classes=("no", "yes"),
        threshold=0.5,
        inputs={"age": "int64"},
        outputs={"probability": "float32"},
        signatures=("serving_default",),
        digest="ab",
        framework={"tensorflow": "2.21.0"},
        lineage={"bundle": "cd"},
    )
    manifest.write(tmp_path)
    assert ModelManifest.read(tmp_path) == manifest


def test_parts_come_in_their_order_and_nothing_else_does(tmp_path):
    (tmp_path / "train").mkdir()
    for name in ("part-00010.parquet", "part-00002.parquet", ".part-3.parquet", "notes.txt"):
        (tmp_path / "train" / name).touch()
    assert [path.name for path in parts(tmp_path, "train")] == ["part-00002.parquet", "part-00010.parquet"]
    assert parts(tmp_path, "eval") == []
