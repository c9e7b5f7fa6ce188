"""The part of a pipeline that differs between targets: the clock, and where models are registered and answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Component = Callable[..., Any]


@dataclass(frozen=True)
class Release:
    """The components that know a registry and an endpoint; their parameters have the same names everywhere.

    Attributes:
        find_champion: bundle, registry → champion, reference.
        register: the model, its evidence and registry → registered.
        deploy: registered, registry, endpoints → deployment.
        scheduled: what the backend replaces by the time that the run was due; ``now`` where the clock is to decide.
        created: what it replaces by the time that the run was created, likewise.
        settings: constants for those of ``register`` and ``deploy`` that have a parameter ``settings``.
    """

    find_champion: Component
    register: Component
    deploy: Component
    scheduled: str = "now"
    created: str = "now"
    settings: Mapping[str, Any] | None = None

    def extra(self, component: Component) -> dict[str, Any]:
        """Returns the further arguments of ``register`` or ``deploy``: the settings, if it takes any."""
        takes = "settings" in (component.component_spec.inputs or {})  # type: ignore[attr-defined]
        return {"settings": dict(self.settings)} if takes and self.settings is not None else {}


def local_release() -> Release:
    """Returns the release into the file registry and the endpoint of this machine."""
    from tidemill.deploy.component import deploy
    from tidemill.register.component import find_champion, register

    return Release(find_champion, register, deploy)
