"""A rollback that is cut off is finished by the next one, and goes no further back."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.errors import PlatformError
from tidemill.vertex.rollout import Rollouts
from tidemill.vertex.settings import Settings


def rollouts(world: Any) -> Rollouts:
    return Rollouts(world.clients, Settings.parse(world.settings), "toy")


def deployed_versions(world: Any) -> list[str]:
    return sorted(model.model_version_id for model in world.endpoint().deployed_models)


@pytest.fixture
def canary(world: Any) -> Any:
    """Versions 1 and 2 were champions, 2 is; 3 has a quarter of its traffic."""
    world.release("1")
    world.release("2")
    world.register("3")
    rolling = rollouts(world)
    rolling.release(rolling.registry.find("3"), 25)
    return world


@pytest.mark.parametrize("method", ["UpdateEndpoint", "MergeVersionAliases", "UndeployModel"])
@pytest.mark.parametrize("done", [False, True])
def test_that_of_a_version_with_a_share(canary: Any, fake: Any, method: str, done: bool) -> None:
    fake.refuse(method, "INTERNAL", "cut off", done=done)
    with pytest.raises(PlatformError, match="cut off"):
        rollouts(canary).rollback()
    if deployed_versions(canary) == ["2"] and "challenger" not in canary.aliases():
        return  # it was cut off after its last effect: nothing is left to finish
    assert rollouts(canary).rollback().version.number == "2"
    assert canary.traffic() == {"2": 100}
    assert deployed_versions(canary) == ["2"]
    assert canary.aliases() == {"default": "1", "champion": "2", "former-1": "1"}


@pytest.mark.parametrize("method", ["UpdateEndpoint", "DeployModel"])
def test_that_of_a_champion(world: Any, fake: Any, method: str) -> None:
    for content in "123":
        world.release(content)
    fake.refuse(method, "INTERNAL", "cut off")
    with pytest.raises(PlatformError, match="cut off"):
        rollouts(world).rollback()
    assert rollouts(world).rollback().version.number == "2"
    assert world.aliases() == {"default": "1", "champion": "2", "former-1": "1"}


def test_that_of_a_champion_whose_leaving_was_cut_off_goes_no_further_back(world: Any, fake: Any) -> None:
    for content in "123":
        world.release(content)
    fake.refuse("UndeployModel", "INTERNAL", "cut off")
    with pytest.raises(PlatformError, match="cut off"):
        rollouts(world).rollback()
    assert rollouts(world).rollback().version.number == "2"
    assert deployed_versions(world) == ["2"]
    assert world.aliases() == {"default": "1", "champion": "2", "former-1": "1"}


def test_a_release_that_was_cut_off_before_it_took_the_former_champion_off_can_be_rolled_back(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.release("1")
    world.register("2")
    rolling = rollouts(world)
    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "_retire", lambda *_: ())
        rolling.release(rolling.registry.find("2"), 100)
    assert deployed_versions(world) == ["1", "2"]
    assert rolling.rollback().version.number == "1"
    assert world.traffic() == {"1": 100}
    assert deployed_versions(world) == ["1"]


def test_an_endpoint_that_is_being_changed_by_another_call_is_waited_for(world: Any, fake: Any) -> None:
    world.release("1")
    busy = "There are other operations running on the Endpoint"
    for method in ("DeployModel", "UndeployModel", "UpdateEndpoint"):
        fake.refuse(method, "FAILED_PRECONDITION", busy)
    assert world.release("2").traffic == {"2": 100}


def test_one_that_stays_busy_is_told_as_what_may_succeed_later(world: Any, fake: Any) -> None:
    world.release("1")
    fake.refuse("UpdateEndpoint", "FAILED_PRECONDITION", "There are other operations running on the Endpoint", times=99)
    with pytest.raises(PlatformError, match="is being changed by another call"):
        world.release("2")


def test_the_endpoint_of_a_trial_that_was_killed_is_none_of_the_models(world: Any, fake: Any) -> None:
    fake.refuse("DeleteEndpoint", "INTERNAL", "cut off")
    with pytest.raises(PlatformError, match="cut off"):
        world.release("1")
    listed = world.clients.endpoints.list_endpoints(request={"parent": world.registry})
    labels = {endpoint.display_name: dict(endpoint.labels) for endpoint in listed}
    assert labels["toy-smoke-1"]["tidemill-trial"] == "toy"
    assert "tidemill-model" not in labels["toy-smoke-1"]
