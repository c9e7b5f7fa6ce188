"""The endpoint of this machine, driven as those of the other targets are."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tidemill.errors import UsageError
from tidemill.files import write_json
from tidemill.serving.endpoints import Endpoint
from tidemill.serving.registry import Registry, model_names
from tidemill_pipelines.targets.local.environments import interpreter
from tidemill_pipelines.targets.local.layout import Layout
from tidemill_pipelines.targets.names import closest
from tidemill_pipelines.targets.remote_endpoints import RemoteEndpoint, Rollout, ServedVersion


class LocalDeployments:
    """The registry and the endpoints below a directory of runs."""

    def __init__(self, runs_dir: Path) -> None:
        self._layout = Layout(runs_dir)

    def deploy(self, model: str, version: str | None, traffic_percent: int | None) -> Rollout:
        """Lets a version answer, as the pipeline's last step does; see `RemoteEndpoints.deploy`.

        Raises:
            UsageError: if there is no such model or version, or less than all traffic is asked for.
            PlatformError: if it doesn't answer as in its rehearsal; the champion is then as it was.
        """
        from tidemill.deploy.run import run

        if traffic_percent not in (None, 100):
            expected = "the endpoint of this machine lets one version answer everything"
            raise UsageError(f"--traffic {traffic_percent}", expected, remedy="leave it out, or name a --target")
        registry = self.registry(model)
        chosen, before = _version(registry, version), registry.aliases().champion
        was_running = Endpoint(self._layout.endpoints, model).running() is not None
        with tempfile.TemporaryDirectory() as directory:
            write_json(Path(directory) / "registered.json", {"name": model, "version": chosen})
            report = run(
                directory,
                self._layout.registry.absolute(),
                self._layout.endpoints.absolute(),
                Path(directory) / "deployment",
                interpreter("serving"),
            )
        changed = not was_running or before != chosen
        return self._rollout(model, chosen, before if changed else report.former, changed, report.answer)

    def rollback(self, model: str) -> Rollout:
        """Makes the former champion the champion again; a running endpoint takes it over without a failed request.

        Raises:
            UsageError: if there is no such model, or no former champion.
        """
        aliases = self.registry(model).rollback()
        assert aliases.champion is not None
        endpoint = Endpoint(self._layout.endpoints, model)
        if endpoint.running():
            endpoint.wait_until_answers(aliases.champion, aliases.event["serial"])
        return self._rollout(model, aliases.champion, aliases.event["before"], True, None)

    def registry(self, model: str) -> Registry:
        """Returns the registry of a model.

        Raises:
            UsageError: if there is no such model.
        """
        names = model_names(self._layout.registry)
        if model not in names:
            known = ", ".join(names) or "none"
            where = self._layout.registry
            raise UsageError(
                f"model {model}", f"no such model in {where}; there is {known}", remedy=closest(model, names)
            )
        return Registry(self._layout.registry, model)

    def _rollout(self, model: str, version: int, former: int | None, changed: bool, answer: object) -> Rollout:
        running = Endpoint(self._layout.endpoints, model).running()
        served = (ServedVersion(str(version), str(running.pid), 100, True),) if running else ()
        address = running.address if running else str(self._layout.registry / model)
        return Rollout(
            model=model,
            version=str(version),
            former=None if former is None else str(former),
            traffic={str(version): 100} if running else {},
            endpoint=RemoteEndpoint(model, address, running.predict_url if running else None, served),
            changed=changed,
            answer=answer,
        )


def _version(registry: Registry, asked: str | None) -> int:
    """Returns the version that is meant: the challenger, or else the champion, where none is asked for."""
    aliases = registry.aliases()
    if asked is None:
        chosen = aliases.challenger if aliases.challenger is not None else aliases.champion
        if chosen is None:
            raise UsageError(
                f"model {registry.model}", "has neither challenger nor champion", remedy="name a --version"
            )
        return chosen
    known = registry.versions()
    if not asked.isdecimal() or int(asked) not in known:
        there = ", ".join(map(str, known)) or "none"
        raise UsageError(f"model {registry.model}", f"no version {asked} is registered; there is {there}")
    return int(asked)
