"""``tidemill endpoint``: what answers predictions, on this machine or on a target."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.errors import DataError, PlatformError, UsageError
from tidemill.serving.client import Answer, Client
from tidemill.serving.endpoints import Endpoint, EndpointStatus, endpoint_names
from tidemill.serving.registry import Registry
from tidemill_pipelines.commands.options import AnyTarget
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, out, print_json, print_table
from tidemill_pipelines.targets.local.layout import Layout

if TYPE_CHECKING:
    from tidemill_pipelines.targets.remote_endpoints import RemoteEndpoint, RemoteEndpoints

app = typer.Typer(help="Start, ask and end endpoints.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
_TIMEOUT_S = 60.0


@app.command()
def up(
    name: Name,
    port: Annotated[int | None, typer.Option(help="Port; 8501 or the next free one by default.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Start a model's endpoint, which serves its champion from then on; nothing happens if it runs.

    Examples:

        tidemill endpoint up lending

        tidemill endpoint up lending --port 9000
    """
    from tidemill_pipelines.targets.local.environments import interpreter

    layout = Layout(runs_dir)
    champion = Registry(layout.registry, name).aliases().champion
    if champion is None:
        remedy = "`tidemill run` makes one, `tidemill models list` shows those there are"
        raise UsageError(f"model {name}", f"has no champion in {layout.registry}", remedy=remedy)
    endpoint = Endpoint(layout.endpoints, name)
    endpoint.up(layout.registry, interpreter("serving"), port)
    endpoint.wait_until_answers(champion)
    _show([endpoint.status()], json_output)
    if not json_output:
        out.print(f"asked at {endpoint.status().predict_url}", soft_wrap=True)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model; all by default.")] = None,
    target: AnyTarget = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Ask the endpoints how they are.

    Examples:

        tidemill endpoint status

        tidemill endpoint status lending --json | jq -r .[0].predict_url

        tidemill endpoint status lending --target production
    """
    if target is not None:
        _show_remote(_open(target).status(name), json_output)
        return
    directory = Layout(runs_dir).endpoints
    names = endpoint_names(directory) if name is None else [name]
    _show([Endpoint(directory, each).status() for each in names], json_output)


@app.command()
def predict(
    name: Name,
    instance: Annotated[str | None, typer.Option(help="One row as a JSON object of features.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Rows as a JSON list, a whole request, or one object per line; - is stdin.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="A loaded version; the champion by default.")] = None,
    target: AnyTarget = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Ask a running endpoint for predictions. Features may be left out; the answer is one line per row.

    Examples:

        tidemill endpoint predict lending --instance '{"income": 52000, "purpose": "car"}'

        tidemill endpoint predict lending --file rows.json

        tail -5 rows.jsonl | tidemill endpoint predict lending --file -

        tidemill endpoint predict lending --file rows.json --target production
    """
    if (instance is None) == (file is None):
        raise UsageError("tidemill endpoint predict", "needs exactly one of --instance and --file")
    body = _request(instance) if instance is not None else _read(file)
    if target is not None:
        if version is not None:
            raise UsageError("--version", "an endpoint of a target is asked as its callers do", remedy="leave it out")
        _print_answer(_open(target).predict(name, body), json_output)
        return
    if (running := Endpoint(Layout(runs_dir).endpoints, name).running()) is None:
        raise UsageError(f"endpoint {name}", "is not running", remedy=f"`tidemill endpoint up {name}` starts it")
    path = f"/v1/models/{name}" + (f"/versions/{version}" if version is not None else "") + ":predict"
    try:
        with Client(running.host, running.port, _TIMEOUT_S) as client:
            answer = client.post(path, body)
    except OSError as error:
        raise PlatformError(f"{running.address}{path}", "does not answer", type(error).__name__) from error
    if answer.status != 200:
        raise _failure(name, answer)
    _print_answer(answer.value, json_output)


@app.command()
def down(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The model whose endpoint is to end.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="End the endpoints of all models.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """End a model's endpoint once it has answered what it was asked.

    Examples:

        tidemill endpoint down lending

        tidemill endpoint down --all
    """
    directory = Layout(runs_dir).endpoints
    if (name is None) != everything:
        raise UsageError("tidemill endpoint down", "needs either a NAME or --all")
    if name is not None and name not in endpoint_names(directory):
        raise UsageError(f"endpoint {name}", f"there is none in {directory}")
    names = [name] if name is not None else endpoint_names(directory)
    ended = [{"model": each, "ended": Endpoint(directory, each).down()} for each in names]
    if json_output:
        print_json(ended)
        return
    for one in ended:
        out.print(f"{one['model']}: {'ended' if one['ended'] else 'was not running'}")


def _show(statuses: list[EndpointStatus], json_output: bool) -> None:
    if json_output:
        print_json([dataclasses.asdict(s) for s in statuses])
        return
    rows = [
        (s.model, s.state, str(s.version or "–"), str(s.pid or "–"), s.address or "–", _failed(s)) for s in statuses
    ]
    print_table(("model", "state", "version", "pid", "address", ""), rows, "no endpoints")


def _open(target: str) -> RemoteEndpoints:
    from tidemill_pipelines.targets.backends import open_endpoints
    from tidemill_pipelines.targets.config import load_target

    return open_endpoints(load_target(target))


def _show_remote(endpoints: Sequence[RemoteEndpoint], json_output: bool) -> None:
    if json_output:
        print_json([dataclasses.asdict(endpoint) for endpoint in endpoints])
        return
    rows = [
        (
            e.model,
            v.version,
            f"{v.traffic_percent} %",
            "ready" if v.ready else "not ready",
            e.url or "–",
            v.detail or "",
        )
        for e in endpoints
        for v in e.versions
    ]
    rows += [(e.model, "–", "–", "no versions", e.url or "–", "") for e in endpoints if not e.versions]
    print_table(("model", "version", "traffic", "state", "address", ""), rows, "no endpoints")


def _print_answer(value: Any, json_output: bool) -> None:
    if json_output or "predictions" not in value:
        print_json(value)
        return
    for prediction in value["predictions"]:
        typer.echo(json.dumps(prediction, ensure_ascii=False))


def _failed(endpoint: EndpointStatus) -> str:
    """Returns why a version isn't served."""
    failed = [v for v in endpoint.versions if v["state"] == "END"]
    return "; ".join(f"version {v['version']} failed: {v['status']['error_message']}" for v in failed)


def _read(file: Path | None) -> Any:
    try:
        text = sys.stdin.read() if str(file) == "-" else Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(file), "cannot be read as text", str(error)) from error
    return _request(text)


def _request(text: str) -> Any:
    """Returns a predict request out of an object of features, a list of them, one per line, or a whole request."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        try:
            value = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise DataError("the rows", "expected JSON, or one JSON object per line", str(error)) from error
    if isinstance(value, dict) and not value.keys() & {"instances", "inputs"}:
        value = [value]
    return {"instances": value} if isinstance(value, list) else value


def _failure(name: str, answer: Answer) -> DataError | PlatformError | UsageError:
    where = f"endpoint {name}"
    if answer.status in (400, 413):
        return DataError(where, answer.error)
    if answer.status == 404:
        return UsageError(where, answer.error)
    return PlatformError(where, "did not answer", f"status {answer.status}: {answer.error}")
