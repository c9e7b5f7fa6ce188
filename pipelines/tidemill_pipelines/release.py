"""The part of a pipeline that differs between targets: the clock, what trains, and where models are kept and answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Component = Callable[..., Any]


@dataclass(frozen=True)
class Release:
    """The components that know a backend of their own; their parameters have the same names everywhere.

    Attributes:
        find_champion: bundle, registry → champion, reference.
        train: bundle, transformed, transform_graph → model, history; in the task itself, or by a job that it watches.
        register: the model, its evidence and registry → registered.
        deploy: registered, registry, endpoints → deployment.
        scheduled: what the backend replaces by the time that the run was due; ``now`` where the clock is to decide.
        created: what it replaces by the time that the run was created, likewise.
        settings: constants for those of ``register`` and ``deploy`` that have a parameter ``settings``.
        training: likewise for ``train`` and ``tune``.
        tune: bundle, transformed, transform_graph → study; None where a tuning is rounds of the pipeline's own tasks.
    """

    find_champion: Component
    train: Component
    register: Component
    deploy: Component
    scheduled: str = "now"
    created: str = "now"
    settings: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    tune: Component | None = None

    def extra(self, component: Component) -> dict[str, Any]:
        """Returns the further arguments of a component that differs by target: the settings, if it takes any."""
        settings = self.training if component in (self.train, self.tune) else self.settings
        return {"settings": dict(settings)} if takes(component, "settings") and settings is not None else {}


def takes(component: Component, parameter: str) -> bool:
    """Tells whether a component has an input of that name."""
    return parameter in (component.component_spec.inputs or {})  # type: ignore[attr-defined]


def local_release() -> Release:
    """Returns the release into the file registry and the endpoint of this machine."""
    from tidemill.deploy.component import deploy
    from tidemill.register.component import find_champion, register
    from tidemill.train.component import train

    return Release(find_champion, train, register, deploy)
