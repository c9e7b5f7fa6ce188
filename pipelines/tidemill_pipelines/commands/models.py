"""``tidemill models``: what is registered, where it came from, and the way back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.serving.registry import Registry, model_names
from tidemill_pipelines.commands.options import AnyTarget
from tidemill_pipelines.console import DEFAULT_RUNS_DIR, Json, RunsDir, out, print_json, print_table
from tidemill_pipelines.targets.local.layout import Layout

app = typer.Typer(help="List and show registered models, and roll back.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name, which is its problem's.")]


@app.command("list")
def list_models(target: AnyTarget = None, runs_dir: RunsDir = DEFAULT_RUNS_DIR, json_output: Json = False) -> None:
    """List the registered models.

    Examples:

        tidemill models list

        tidemill models list --target production

        tidemill models list --json | jq -r '.[].name'
    """
    if target is not None:
        _list_remote(target, json_output)
        return
    layout = Layout(runs_dir)
    models = [_model(Registry(layout.registry, name)) for name in model_names(layout.registry)]
    if json_output:
        print_json(models)
        return
    rows = [(m["name"], _text(m["champion"]), _text(m["challenger"]), str(len(m["versions"]))) for m in models]
    print_table(("model", "champion", "challenger", "versions"), rows, f"no models in {layout.registry}")


@app.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Argument(help="A version; all of them if left out.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    json_output: Json = False,
) -> None:
    """Show a model's versions, where its champion comes from and its history, or one version and its checks.

    Examples:

        tidemill models show lending

        tidemill models show lending 3 --json | jq .lineage.examples.source
    """
    registry = _find(runs_dir, name)
    if version is not None:
        _show_version(registry, version, json_output)
        return
    facts = {**_model(registry), "events": registry.events()}
    if json_output:
        print_json(facts)
        return
    rows = [
        (str(v["version"]), ", ".join(v["aliases"]) or "–", v["registered"][:19].replace("T", " "), v["run_id"])
        for v in facts["versions"]
    ]
    print_table(("version", "alias", "registered (UTC)", "run"), rows, "no versions")
    out.print()
    chosen = next((n for n in (facts["champion"], facts["challenger"]) if n is not None), None)
    if chosen is not None:
        out.print(f"version {chosen} comes from")
        print_table(("", ""), _origins(registry, chosen), "")
        out.print()
    events = [(e["time"][:19].replace("T", " "), e["event"], str(e["version"])) for e in facts["events"]]
    print_table(("time (UTC)", "event", "version"), events, "no events")


@app.command()
def rollback(name: Name, runs_dir: RunsDir = DEFAULT_RUNS_DIR, json_output: Json = False) -> None:
    """Make the former champion the champion again; a running endpoint takes it over without a failed request.

    Example:

        tidemill models rollback lending
    """
    from tidemill_pipelines.targets.local.deployments import LocalDeployments

    done = LocalDeployments(runs_dir).rollback(name)
    url = done.endpoint.url
    if json_output:
        champion, before = int(done.version), int(done.former) if done.former else None
        print_json({"name": name, "champion": champion, "before": before, "endpoint": url})
        return
    out.print(f"{name}: version {done.version} is the champion again, instead of {done.former}")
    out.print(f"it answers at {url}" if url else "no endpoint is running", soft_wrap=True)


def _find(runs_dir: Path, name: str) -> Registry:
    from tidemill_pipelines.targets.local.deployments import LocalDeployments

    return LocalDeployments(runs_dir).registry(name)


def _list_remote(target: str, json_output: bool) -> None:
    from tidemill_pipelines.targets.backends import open_endpoints
    from tidemill_pipelines.targets.config import load_target

    found = open_endpoints(load_target(target)).models()
    if json_output:
        print_json([dataclasses.asdict(version) for version in found])
        return
    rows = [(v.model, v.version, ", ".join(v.aliases) or "–", (v.digest or "–")[:19], v.address or "–") for v in found]
    print_table(("model", "version", "alias", "digest", "address"), rows, f"no models on {target}")


def _model(registry: Registry) -> dict[str, Any]:
    aliases = registry.aliases()
    versions = []
    for version in reversed(registry.versions()):
        lineage = _lineage(registry, version)
        known = {key: lineage[key] for key in ("run_id", "registered")}
        versions.append({"version": version, "aliases": aliases.of(version), **known})
    named = {"champion": aliases.champion, "challenger": aliases.challenger, "former": aliases.former}
    return {"name": registry.model, **named, "versions": versions}


def _lineage(registry: Registry, version: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(registry.extra(version, "lineage.json").read_text())
    return value


def _show_version(registry: Registry, version: int, json_output: bool) -> None:
    manifest = registry.manifest(version)
    lineage = _lineage(registry, version)
    aliases = registry.aliases().of(version)
    if json_output:
        facts = {"name": registry.model, "version": version, "aliases": aliases}
        path = str(registry.directory(version).absolute())
        print_json({**facts, "path": path, "model": dataclasses.asdict(manifest), "lineage": lineage})
        return
    out.print(f"{registry.model} {version}", style="bold", end="")
    out.print(f"  {', '.join(aliases)}  {manifest.task}")
    print_table(("", ""), _origins(registry, version), "")
    checks = [check for decision in lineage["decisions"].values() for check in decision["checks"]]
    rows = [
        (
            check["name"],
            " × ".join(f"{column}={value}" for column, value in check["slice"].items()),
            check["expected"],
            check["got"],
            _mark(check),
        )
        for check in checks
    ]
    print_table(("check", "slice", "expected", "got", ""), rows, "no checks")


def _origins(registry: Registry, version: int) -> list[tuple[str, str]]:
    """Returns what a version was made from, by name."""
    manifest, lineage = registry.manifest(version), _lineage(registry, version)
    examples, environment = lineage["examples"], lineage["environment"]
    source = examples["source"]
    return [
        ("registered", lineage["registered"]),
        ("run", lineage["run_id"]),
        ("model", manifest.digest),
        ("problem bundle", lineage["bundle"]),
        ("source", source.get("uri") or "–"),
        ("source fingerprint", source.get("fingerprint") or "–"),
        ("examples manifest", examples["manifest"]),
        ("rows", ", ".join(f"{split} {rows}" for split, rows in examples["rows"].items())),
        ("framework", ", ".join(f"{library} {number}" for library, number in manifest.framework.items())),
        ("uv.lock", environment["lock"] or "unknown"),
        ("git commit", environment["commit"] or "unknown"),
        ("installed packages", environment["installed"]),
        ("path", str(registry.directory(version))),
    ]


def _mark(check: dict[str, Any]) -> str:
    return "✓" if check["passed"] else "✗" if check["blocking"] else "!"


def _text(version: int | None) -> str:
    return "–" if version is None else str(version)
