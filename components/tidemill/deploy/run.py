"""Lets a registered version answer: beside the champion first, and in its place when it has proved to."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError
from tidemill.files import replaced_directory, write_json
from tidemill.samples import SAMPLE, Sample
from tidemill.serving.client import Client
from tidemill.serving.endpoints import Endpoint, Running
from tidemill.serving.registry import Registry

DEPLOYMENT: Final = "deployment.json"


@dataclass(frozen=True)
class DeployReport:
    """What answers, and where.

    Attributes:
        address: ``http://host:port``.
        url: where predictions are asked for.
        former: the champion before, if there was one.
        started: whether the endpoint was started; False if a running one took the version over.
        curl: a request for the shell, made of a row of the test split.
        answer: what the endpoint answered to it.
    """

    model: str
    version: int
    address: str
    url: str
    former: int | None
    started: bool
    curl: str
    answer: Any


def run(
    registered: str | Path,
    registry: str | Path,
    endpoints: str | Path,
    deployment: str | Path,
    python: str | Path = sys.executable,
) -> DeployReport:
    """Has the model's local endpoint load the version, tries it, makes it the champion, and sees it answer.

    Each step finds what an earlier try left of it: a running endpoint, a loaded version, a moved alias.

    Args:
        python: interpreter of the serving environment, for an endpoint that has to be started.

    Raises:
        UsageError: if an endpoint of that name serves another registry.
        PlatformError: if the version doesn't answer as it did in the rehearsal; the champion is then as it was.
    """
    described = json.loads((Path(registered) / "registered.json").read_text())
    version = int(described["version"])
    store = Registry(Path(registry), described["name"])
    aliases = store.nominate(version)
    endpoint = Endpoint(Path(endpoints), store.model)
    running, started = endpoint.up(Path(registry), Path(python))
    if endpoint.failed(version):  # in an earlier try, perhaps: what was wrong then may be mended
        aliases = store.nominate(version, again=True)
    endpoint.wait_until_loaded(version, aliases.event["serial"])
    sample = Sample.read(store.extra(version, SAMPLE))
    body = sample.request
    answer = _ask(running, f"/v1/models/{store.model}/versions/{version}:predict", body)
    if not sample.agrees(answer["predictions"][0]):
        raise PlatformError(
            f"endpoint {store.model}",
            f"version {version} must answer a test row as it did in the rehearsal",
            "another prediction",
            f"see {endpoint.log}",
        )
    aliases = store.promote(version)
    endpoint.wait_until_answers(version, aliases.event["serial"])
    report = DeployReport(
        store.model,
        version,
        running.address,
        running.predict_url,
        aliases.former[-1] if aliases.former else None,
        started,
        _curl(running.predict_url, body),
        _ask(running, f"/v1/models/{store.model}:predict", body),
    )
    with replaced_directory(Path(deployment)) as directory:
        write_json(directory / DEPLOYMENT, asdict(report))
    return report


def _ask(running: Running, path: str, body: Any) -> Any:
    where = f"{running.address}{path}"
    try:
        with Client(running.host, running.port, timeout_s=60) as client:
            answer = client.post(path, body)
    except OSError as error:
        raise PlatformError(where, "must answer a test row", type(error).__name__) from error
    if answer.status != 200:
        raise PlatformError(where, "must answer a test row", f"status {answer.status}: {answer.error}")
    return answer.value


def _curl(url: str, body: Any) -> str:
    content = json.dumps(body, ensure_ascii=False)
    return f"curl -s -H 'Content-Type: application/json' -d {shlex.quote(content)} {url}"
