"""The job server that runs Beam pipelines on Flink, from Maven.

The Python SDK would download one jar of 300 MB per Flink version, unchecked, and looks for exactly its own version.
Maven gets the same runner as its parts, each held against its checksum, and keeps them in its own repository. What
is made here is a jar that holds nothing but their places, which ``java -jar`` follows.

``python -m tidemill.job_server`` prepares it, in an image for example, and prints where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tidemill.errors import PlatformError

FLINK_VERSION: Final = "1.19"
RUNNER_VERSION: Final = "2.62.0"
"""The latest release of the runner that Maven Central gave whole when this was written; its protocol is the SDK's."""
_MAIN_CLASS: Final = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_CLASSPATH: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath"
_LINE_BYTES: Final = 70
_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemill</groupId>
  <artifactId>flink-job-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.beam</groupId>
      <artifactId>beam-runners-flink-{FLINK_VERSION}</artifactId>
      <version>{RUNNER_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def flink_job_server(cache: Path | None = None) -> Path:
    """Returns the jar of the job server, whose parts are downloaded the first time: 152 MB.

    Args:
        cache: directory for the jar; ``$XDG_CACHE_HOME/tidemill`` by default. The parts stay in Maven's repository.

    Raises:
        PlatformError: if there is no Maven, or it can't get the parts.
    """
    directory = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill"
    jar = directory / f"flink-{FLINK_VERSION}-job-server-{RUNNER_VERSION}.jar"
    if not jar.is_file() or not all(part.is_file() for part in _parts_of(jar)):
        parts = _resolve()
        directory.mkdir(parents=True, exist_ok=True)
        beside = jar.with_suffix(f".{os.getpid()}.partial")
        with zipfile.ZipFile(beside, "w") as archive:
            archive.writestr("META-INF/MANIFEST.MF", _manifest(parts))
            archive.writestr("META-INF/parts", "\n".join(map(str, parts)))
        os.replace(beside, jar)
    return jar


def _parts_of(jar: Path) -> list[Path]:
    with zipfile.ZipFile(jar) as archive:
        return [Path(line) for line in archive.read("META-INF/parts").decode().splitlines()]


def _resolve() -> list[Path]:
    remedy = "install Maven and Java, or name a running job server with --job_endpoint=host:port"
    maven = shutil.which("mvn")
    if maven is None:
        raise PlatformError("the job server of flink", "is got by Maven", "no mvn on the PATH", remedy)
    with tempfile.TemporaryDirectory() as directory:
        pom, output = Path(directory) / "pom.xml", Path(directory) / "classpath"
        pom.write_text(_POM)
        command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(pom), _CLASSPATH]
        done = subprocess.run([*command, f"-Dmdep.outputFile={output}"], capture_output=True, text=True)
        if done.returncode != 0:
            said = next((line for line in done.stdout.splitlines() if "[ERROR]" in line), done.stderr.strip())
            raise PlatformError("the job server of flink", "must be got by Maven", said, remedy)
        return [Path(part) for part in output.read_text().strip().split(os.pathsep)]


def _manifest(parts: list[Path]) -> str:
    classpath = " ".join(part.as_uri() for part in parts)
    fields = ("Manifest-Version: 1.0", f"Main-Class: {_MAIN_CLASS}", f"Class-Path: {classpath}")
    return "".join(_folded(field) for field in fields) + "\r\n"


def _folded(field: str) -> str:
    """Breaks a line as manifests want it: 72 bytes at most, continued by a space."""
    lines = [field[:_LINE_BYTES]]
    rest = field[_LINE_BYTES:]
    lines += [f" {rest[i : i + _LINE_BYTES - 1]}" for i in range(0, len(rest), _LINE_BYTES - 1)]
    return "".join(f"{line}\r\n" for line in lines)


if __name__ == "__main__":
    try:
        print(flink_job_server())
    except PlatformError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
