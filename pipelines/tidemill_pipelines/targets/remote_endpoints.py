"""Where a released model answers on a remote target. The commands know no more of a backend than this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class ModelVersion:
    """A version in the target's registry.

    Attributes:
        version: as the registry counts it: ``3``.
        aliases: of ``champion`` and ``challenger``, those it has.
        digest: hex sha256 of the SavedModel; None where the registry's entry wasn't made by tidemill.
        address: what the backend calls it: a resource name, or a path.
    """

    model: str
    version: str
    aliases: tuple[str, ...] = ()
    digest: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class ServedVersion:
    """A version that an endpoint has.

    Attributes:
        id: what the backend calls it there: a deployed model's id, or a service's name.
        traffic_percent: share of the requests that it answers; 0 to 100.
        ready: whether it could answer.
        detail: machine and replicas, or why it isn't ready, in the backend's words.
    """

    version: str
    id: str
    traffic_percent: int
    ready: bool
    detail: str | None = None


@dataclass(frozen=True)
class RemoteEndpoint:
    """An endpoint, asked of its backend.

    Attributes:
        address: resource name or route.
        url: where predictions are asked for; None if it has no address yet.
        versions: the one with most traffic first.
    """

    model: str
    address: str
    url: str | None
    versions: Sequence[ServedVersion] = ()


@dataclass(frozen=True)
class Rollout:
    """What a deployment or a rollback came to.

    Attributes:
        version: that has the traffic it was to have now.
        former: champion before; None if there was none.
        traffic: percent by version, of all that have any.
        changed: False if all was so already.
        retired: versions that were taken off because they had no traffic left.
        answer: what the smoke prediction answered; None where none was needed.
    """

    model: str
    version: str
    former: str | None
    traffic: Mapping[str, int]
    endpoint: RemoteEndpoint
    changed: bool = True
    retired: tuple[str, ...] = ()
    answer: Any = field(default=None)


class RemoteEndpoints(Protocol):
    """The registry and the endpoints of a target. Errors are those of `tidemill_pipelines.targets.remote`."""

    def models(self) -> Sequence[ModelVersion]:
        """Returns the versions that tidemill registered: by model, the newest first."""

    def deploy(self, model: str, version: str | None, traffic_percent: int | None) -> Rollout:
        """Lets a version answer, after it has answered a row as it did in its rehearsal.

        A second call, or one after a failure, finds what the first left and goes on.

        Args:
            version: the challenger by default, or the champion where there is no challenger.
            traffic_percent: its share; that of the target's file by default. The rest stays with those before it.

        Raises:
            UsageError: if there is no such model or version.
            PlatformError: if it doesn't answer, or otherwise than in the rehearsal; the traffic is then as it was.
        """

    def rollback(self, model: str) -> Rollout:
        """Gives all traffic back to the champion before.

        Raises:
            UsageError: if there is none.
        """

    def status(self, model: str | None) -> Sequence[RemoteEndpoint]:
        """Returns one model's endpoint, or those of all models.

        Raises:
            UsageError: if the model has none.
        """

    def predict(self, model: str, body: Mapping[str, Any]) -> Any:
        """Sends ``{"instances": […]}`` to the model's endpoint and returns the response's JSON value."""
