"""The jar of Flink's job server names parts that Maven got; where there is no Maven, that is said."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from tidemill.errors import PlatformError
from tidemill.job_server import flink_job_server


def fake_maven(directory: Path, script: str) -> None:
    """Puts a program that is called as Maven would be in the place of it."""
    path = directory / "mvn"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A Maven that counts its calls and answers with two parts in a directory whose name needs quoting."""
    directory = tmp_path / f"repository of {'very ' * 20}long name"
    directory.mkdir()
    found = [directory / "a.jar", directory / "b.jar"]
    for part in found:
        part.write_bytes(b"")
    output = "${0%/*}/../answer"
    (tmp_path / "answer").write_text(os.pathsep.join(map(str, found)))
    (tmp_path / "bin").mkdir()
    for_file = 'for a; do case $a in -Dmdep.outputFile=*) cat "' + output + '" > "${a#*=}";; esac; done'
    fake_maven(tmp_path / "bin", f'echo "$@" >> "{tmp_path}/calls"\n{for_file}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return found


def test_the_jar_leads_java_to_the_parts(parts, tmp_path):
    jar = flink_job_server(tmp_path / "cache")
    with zipfile.ZipFile(jar) as archive:
        text = archive.read("META-INF/MANIFEST.MF").decode()
    assert all(len(line.encode()) <= 72 for line in text.split("\r\n"))
    fields = dict(line.split(": ", 1) for line in text.replace("\r\n ", "").split("\r\n") if line)
    assert fields["Main-Class"] == "org.apache.beam.runners.flink.FlinkJobServerDriver"
    assert fields["Class-Path"].split(" ") == [part.as_uri() for part in parts]


def test_maven_is_asked_once_with_strict_checksums_and_again_when_a_part_is_gone(parts, tmp_path):
    for _ in range(2):
        flink_job_server(tmp_path / "cache")
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "--strict-checksums" in call
    parts[0].unlink()
    flink_job_server(tmp_path / "cache")
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_without_maven_the_way_round_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match=r"got by Maven \(got no mvn on the PATH\)\n.*--job_endpoint"):
        flink_job_server(tmp_path / "cache")


def test_what_maven_says_is_told(tmp_path, monkeypatch):
    fake_maven(tmp_path, "echo '[ERROR] Could not find artifact'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(PlatformError, match=r"must be got by Maven .*Could not find artifact"):
        flink_job_server(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
