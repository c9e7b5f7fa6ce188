"""A version takes over an endpoint's traffic: tried first, beside the others next, and in their place at last.

Vertex AI lets no request choose its deployed model: every one goes by the traffic split. So a version is tried on an
endpoint of its own, ``<name>-smoke-<version>``, which lives for the trial only and costs one replica for some
minutes. What is deployed to the real endpoint has therefore proved to answer, and a step that is run again goes on
from there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tidemill.errors import PlatformError, TidemillError, UsageError
from tidemill.samples import Sample
from tidemill.vertex.clients import Clients
from tidemill.vertex.endpoints import ModelEndpoint, deployed, deployed_id
from tidemill.vertex.registry import CHALLENGER, CHAMPION, ModelRegistry, Version, last_former, read_sample
from tidemill.vertex.settings import Settings
from tidemill.vertex.storage import Store
from tidemill.vertex.traffic import idle, split_with

_SETTLED_S: Final = 120.0


@dataclass(frozen=True)
class Outcome:
    """What a rollout came to.

    Attributes:
        version: that has its share now.
        former: number of the champion before, if there was one.
        traffic: percent by version's number.
        endpoint: the Endpoint message as it is now.
        changed: False if all was so already.
        retired: numbers of the versions that were taken off.
        answer: the smoke prediction.
    """

    version: Version
    former: str | None
    traffic: Mapping[str, int]
    endpoint: Any
    changed: bool
    retired: tuple[str, ...]
    answer: Any


class Rollouts:
    """Rollouts of one model."""

    def __init__(self, clients: Clients, settings: Settings, model: str) -> None:
        self.registry = ModelRegistry(clients, model)
        self.endpoint = ModelEndpoint(clients, settings, model)
        self._clients = clients
        self._settings = settings
        self._store = Store(clients.location)

    def release(self, version: Version, percent: int) -> Outcome:
        """Gives a version its share of the traffic, once it has answered a row as in its rehearsal.

        With all of the traffic it becomes the champion; with a part, it stays the challenger beside the champion.

        Raises:
            UsageError: if Vertex AI refuses machine, accelerator or model.
            PlatformError: if the version doesn't answer as in its rehearsal; the traffic is then as it was.
        """
        sample = read_sample(self._store, version)
        wanted, before = deployed_id(version, self._settings), self.endpoint.ensure()
        answer, fresh = None, deployed(before, wanted) is None
        if fresh:
            answer = self._try(version, sample)
            self._put(version, before)
        moved = self._move(version, wanted, percent, sample)
        whole = self._traffic().get(version.number) == 100
        former = self.registry.promote(version) if whole else self.registry.holder(CHAMPION)
        retired = self._retire(wanted)
        return self._outcome(version, former, fresh or moved or bool(retired), retired, answer)

    def rollback(self) -> Outcome:
        """Gives all traffic back: from a challenger to the champion, or else from the champion to the one before.

        The version has served before, so that it is not tried again: rolling back must not wait. A rollback that was
        cut off is finished by the next one, which goes no further back.

        Raises:
            UsageError: if there is no former champion.
        """
        versions = self.registry.versions()
        champion = next((v for v in versions if CHAMPION in v.aliases), None)
        challenger = next((v for v in versions if CHALLENGER in v.aliases), None)
        left = self._left(champion, challenger, last_former(versions, but=champion))
        target = champion if left is not None and champion is not None else self.registry.former()
        wanted, before = deployed_id(target, self._settings), self.endpoint.get()
        if deployed(before, wanted) is None:
            self._put(target, before)
        self._move(target, wanted, 100, read_sample(self._store, target))
        if left is None:
            self.registry.revert(target)
        elif challenger is not None and challenger.number == left:
            self.registry.withdraw(challenger)
        outcome = self._outcome(target, None, True, self._retire(wanted), None)
        return replace(outcome, former=left or (champion.number if champion else None))

    def _left(self, champion: Version | None, challenger: Version | None, former: Version | None) -> str | None:
        """Returns the number of the version that a rollback leaves for the champion; None if it leaves the champion.

        That is a challenger with a share; or one without, deployed beside a champion that has all: a rollback was
        cut off. The former champion stands so after a release that was cut off, which can be rolled back.
        """
        if champion is None:
            return None
        endpoint = self.endpoint.get()
        shares = traffic_by_version(endpoint)
        if challenger is not None and shares.get(challenger.number, 0) > 0:
            return challenger.number
        idle = {m.model_version_id for m in endpoint.deployed_models} - shares.keys()
        idle -= {former.number} if former is not None else set()
        return min(idle) if idle and shares == {champion.number: 100} else None

    def _try(self, version: Version, sample: Sample) -> Any:
        """Has a version answer the sample on an endpoint of its own, which is deleted whatever comes of it."""
        settings = replace(self._settings, min_replicas=1, max_replicas=1, target_cpu_percent=None)
        trial = ModelEndpoint(self._clients, settings, self.registry.model, f"-smoke-{version.number}")
        try:
            trial.ensure()
            trial.deploy(version, alone=True)
            answer = self._ask(trial, sample)
            _must_agree(f"endpoint {trial.name}", version, sample, answer)
        finally:
            trial.delete()
        return answer

    def _put(self, version: Version, endpoint: Any) -> None:
        """Deploys a version to the real endpoint, without traffic."""
        if self._settings.private:  # it has one deployed model at a time, so this one leaves a gap
            for model in endpoint.deployed_models:
                self.endpoint.undeploy(model.id)
        self.endpoint.deploy(version, alone=self._settings.private)

    def _move(self, version: Version, wanted: str, percent: int, sample: Sample) -> bool:
        """Moves the traffic, sees the endpoint answer, and moves it back if it doesn't; returns whether it moved."""
        before = dict(self.endpoint.get().traffic_split)
        after = split_with(before, wanted, percent)
        if after == before:
            return False
        self.endpoint.route(after)
        try:
            self._see_answer(version, wanted, sample, certainly=len(after) == 1)
        except TidemillError:
            if before:
                self.endpoint.route(before)
            raise
        return True

    def _see_answer(self, version: Version, wanted: str, sample: Sample, certainly: bool) -> None:
        """Waits until the new split is in force, which takes seconds, and holds its answer against the sample."""
        deadline = time.monotonic() + _SETTLED_S
        while True:
            answer = self._ask(self.endpoint, sample)
            if answer.get("deployedModelId") == wanted:
                _must_agree(f"endpoint {self.endpoint.name}", version, sample, answer)
                return
            if not certainly:
                return
            if time.monotonic() > deadline:
                other = f"deployed model {answer.get('deployedModelId')} still answers"
                raise PlatformError(f"endpoint {self.endpoint.name}", f"version {version.number} must answer", other)
            time.sleep(self._clients.patience.pause)

    def _ask(self, endpoint: ModelEndpoint, sample: Sample) -> dict[str, Any]:
        deadline = time.monotonic() + _SETTLED_S
        while True:
            try:
                return endpoint.predict(sample.request)
            except UsageError as error:  # the row is a good one: the rehearsal's server answered it
                where, remedy = error.where, "see its logs in the console"
                raise PlatformError(where, "must answer a test row", error.got, remedy) from error
            except PlatformError as error:
                # The name of an endpoint's own host takes a while to be known.
                unknown = self._settings.dedicated and isinstance(error.__cause__, OSError)
                if not unknown or time.monotonic() > deadline:
                    raise
            time.sleep(self._clients.patience.pause)

    def _retire(self, wanted: str) -> tuple[str, ...]:
        """Takes off what has no traffic, after what is on its way has had time to arrive."""
        endpoint = self.endpoint.get()
        if not idle([m.id for m in endpoint.deployed_models], endpoint.traffic_split, wanted):
            return ()
        time.sleep(self._settings.drain_s)
        endpoint = self.endpoint.get()  # the traffic may have been changed meanwhile
        numbers = {model.id: model.model_version_id for model in endpoint.deployed_models}
        gone = idle(list(numbers), endpoint.traffic_split, wanted)
        for identity in gone:
            self.endpoint.undeploy(identity)
        return tuple(numbers[identity] for identity in gone)

    def _outcome(
        self, version: Version, former: Version | None, changed: bool, retired: tuple[str, ...], answer: Any
    ) -> Outcome:
        endpoint = self.endpoint.get()
        return Outcome(
            version=self.registry.find(version.number),
            former=former.number if former is not None and former.number != version.number else None,
            traffic=traffic_by_version(endpoint),
            endpoint=endpoint,
            changed=changed,
            retired=retired,
            answer=answer,
        )

    def _traffic(self) -> dict[str, int]:
        return traffic_by_version(self.endpoint.get())


def traffic_by_version(endpoint: Any) -> dict[str, int]:
    """Returns the percent of each version that has any, by its number; a version may be deployed twice."""
    shares: dict[str, int] = {}
    for model in endpoint.deployed_models:
        if (share := endpoint.traffic_split.get(model.id, 0)) > 0:
            shares[model.model_version_id] = shares.get(model.model_version_id, 0) + share
    return shares


def _must_agree(where: str, version: Version, sample: Sample, answer: Mapping[str, Any]) -> None:
    predictions = answer.get("predictions") or [None]
    if not sample.agrees(predictions[0]):
        expected = f"version {version.number} must answer a test row as it did in the rehearsal"
        raise PlatformError(where, expected, "another prediction", "see its logs in the console")
