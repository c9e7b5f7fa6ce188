"""Bundles are put where the tasks read them, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_fake import ObjectFake

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.kubernetes.storage import stage


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectFake]:
    with ObjectFake() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_what_is_there_is_not_written_again(store: ObjectFake, scheme: str) -> None:
    files = {f"{scheme}://example-bucket/tidemill/bundles/{name}.zip": name.encode() for name in ("ab", "cd")}
    stage(files)
    stage(files)
    assert store.objects == {f"example-bucket/tidemill/bundles/{n}.zip": n.encode() for n in ("ab", "cd")}
    assert len(store.writes) == 2


def test_one_that_was_cut_short_is_written_anew(store: ObjectFake) -> None:
    store.objects["example-bucket/ab.zip"] = b"half"
    stage({"s3://example-bucket/ab.zip": b"the whole"})
    assert store.objects["example-bucket/ab.zip"] == b"the whole"


def test_a_bucket_that_does_not_exist_is_told(store: ObjectFake) -> None:
    with pytest.raises(PlatformError, match="The specified bucket does not exist"):
        stage({"s3://elsewhere/ab.zip": b"ab"})


def test_credentials_that_may_not_write_are_told(store: ObjectFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    with pytest.raises(PlatformError, match="PermissionError"):
        stage({"s3://example-bucket/ab.zip": b"ab"})


def test_minio_needs_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL_S3"):
        stage({"minio://example-bucket/ab.zip": b"ab"})


def test_an_address_that_no_store_has_is_refused(tmp_path: Path) -> None:
    for address in ("http://example.com/ab.zip", "ab.zip", "/bundles/ab.zip"):
        with pytest.raises(UsageError, match="set `pipeline_root`"):
            stage({address: b"ab"})
    stage({f"file://{tmp_path}/deep/ab.zip": b"ab"})
    assert (tmp_path / "deep" / "ab.zip").read_bytes() == b"ab"
