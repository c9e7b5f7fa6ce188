"""How the traffic is handed over: the gateway accepts it first, nothing that another release needs is deleted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from released import SETTINGS, World

from tidemill.errors import PlatformError
from tidemill.kserve import routes
from tidemill.kserve import run as releases
from tidemill.kserve.routes import restore_route
from tidemill.kserve.run import Place, release, rollback

SECOND = ("tidemill", "inferenceservices", "lending-v2")


def after_the_move(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Has something done once, when a release has moved the traffic and before it goes on."""
    move, due = releases._move, iter([True])

    def moved(*arguments: Any) -> bool:
        result = move(*arguments)
        if next(due, False):
            do()
        return result

    monkeypatch.setattr(releases, "_move", moved)


class TestTwoReleasesAtOnce:
    """One by schedule and one by hand: whichever ends last deletes nothing that the other needs."""

    def test_one_that_has_moved_the_traffic_meanwhile_keeps_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release(world.place(), world.register(), 100)
        mine, others = world.register(), world.register()
        after_the_move(monkeypatch, lambda: release(world.place(), others, 100))
        report = release(world.place(), mine, 100)
        assert (world.traffic, world.served) == ({others: 100}, [f"lending-v{others}"])
        assert world.store.aliases().champion == others, "the registry says what the route does"
        assert (report.traffic, report.retired) == ({str(others): 100}, ())

    def test_one_that_is_still_making_its_version_ready_keeps_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release(world.place(), world.register(), 100)
        mine = world.register()

        def begin() -> None:
            other = world.register()
            place = world.place()
            releases._ready(place, other, renew=True)

        after_the_move(monkeypatch, begin)
        release(world.place(), mine, 100)
        assert (world.traffic, world.served) == ({mine: 100}, [f"lending-v{mine}", f"lending-v{mine + 1}"])

    def test_a_service_that_was_made_anew_meanwhile_is_another_releases(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its name alone says nothing: a rollback may just have made the former champion's again."""
        release(world.place(), world.register(), 100)
        key = ("tidemill", "inferenceservices", "lending-v1")

        def again() -> None:
            del world.cluster.objects[key]
            releases._ready(world.place(), 1, renew=False)

        after_the_move(monkeypatch, again)
        assert release(world.place(), world.register(), 100).retired == ()
        assert key in world.cluster.objects

    def test_traffic_that_comes_back_during_the_drain_is_seen(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        version, place = world.register(), world.place()
        place.cluster.pause = lambda seconds: rollback(world.place(), leave=version)  # type: ignore[assignment]
        release(place, version, 100)
        assert world.traffic == {1: 100}
        assert "lending-v1" in world.served

    def test_a_route_that_is_gone_costs_no_version_its_service(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release(world.place(), world.register(), 100)
        version, place = world.register(), world.place()
        place.cluster.pause = lambda s: world.cluster.objects.pop(("tidemill", "httproutes", "lending"))  # type: ignore[assignment]
        assert release(place, version, 100).retired == ()
        assert world.served == ["lending-v1", "lending-v2"]

    def test_a_share_beside_a_champion_that_is_one_no_more_is_not_given(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        mine, others = world.register(), world.register()
        predict = world.cluster.controller(f"lending-v{mine}").predict
        assert predict is not None

        def meanwhile(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            world.cluster.controller(f"lending-v{mine}").predict = predict
            release(world.place(), others, 100)
            return predict(body)

        world.cluster.controller(f"lending-v{mine}").predict = meanwhile
        with pytest.raises(PlatformError, match=r"the champion must stay the same(.|\n)*run the step again"):
            release(world.place(), mine, 10)
        assert world.traffic == {others: 100}
        release(world.place(), mine, 10)
        assert world.traffic == {mine: 10, others: 90}


class TestTheGateway:
    """A route that it doesn't accept gets no traffic, whatever the route says."""

    @pytest.fixture(autouse=True)
    def _quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(routes, "_PATIENCE_S", 0.03)

    def refused(self, world: World, place: Place, message: str) -> str:
        """Releases a second version, which the gateway refuses; returns what is told."""
        before = world.cluster.object("httproutes", "lending")
        assert before is not None
        before = json.loads(json.dumps(before))
        with pytest.raises(PlatformError, match=message) as told:
            release(place, world.register(), 100)
        after = world.cluster.object("httproutes", "lending")
        assert after is not None
        assert after["spec"] == before["spec"]
        assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
        assert world.store.aliases().champion == 1
        assert world.served == ["lending-v1", "lending-v2"]
        assert "the traffic is as it was" in str(told.value)
        return str(told.value)

    def test_one_that_refuses_the_hostname_leaves_all_as_it_was(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        world.cluster.gateway.hostname = "models.example.com"
        place = world.place(replace(SETTINGS, hostname="modells.example.com"))
        told = self.refused(world, place, r"gateway tidemill must accept it within 60 s")
        assert "Accepted: NoMatchingListenerHostname" in told
        assert "`deploy.hostname`" in told

    def test_one_that_does_not_exist_leaves_all_as_it_was(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        place = world.place(replace(SETTINGS, gateway="tidemil", route_timeout_s=0))
        self.refused(world, place, "gateway tidemil does not say Accepted; gateway tidemil does not say ResolvedRefs")

    def test_one_that_is_too_slow_leaves_all_as_it_was(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        world.cluster.gateway.accepts_after = None
        self.refused(world, world.place(replace(SETTINGS, route_timeout_s=0)), "does not say Accepted")

    def without_service(self, world: World, monkeypatch: pytest.MonkeyPatch, for_s: float | None) -> None:
        """Takes the second version's service away for a while, or for good, when the traffic moves."""
        apply_route = releases.apply_route

        def gone(*arguments: Any) -> Any:
            service = world.cluster.objects.pop(SECOND)
            if for_s is not None:
                threading.Timer(for_s, lambda: world.cluster.objects.update({SECOND: service})).start()
            return apply_route(*arguments)

        monkeypatch.setattr(releases, "apply_route", gone)

    def test_one_that_lacks_a_service_gets_no_traffic(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A rollback by hand may need what another release has just deleted."""
        release(world.place(), world.register(), 100)
        self.without_service(world, monkeypatch, for_s=None)
        with pytest.raises(PlatformError, match="ResolvedRefs: BackendNotFound: lending-v2-predictor"):
            release(world.place(), world.register(), 100)
        assert (world.traffic, world.served, world.store.aliases().champion) == ({1: 100}, ["lending-v1"], 1)

    def test_one_that_does_not_know_a_service_yet_has_a_while_to(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release(world.place(), world.register(), 100)
        self.without_service(world, monkeypatch, for_s=0.2)
        monkeypatch.setattr(routes, "_PATIENCE_S", 30)
        release(world.place(), world.register(), 100)
        assert (world.traffic, world.served) == ({2: 100}, ["lending-v2"])

    def test_one_that_takes_its_time_is_waited_for_before_anything_is_deleted(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        world.cluster.gateway.accepts_after = 4
        version, seen = world.register(), []
        world.cluster.on_verdict = lambda name: seen.append((world.served, world.store.aliases().champion))
        release(world.place(), version, 100)
        assert seen == [(["lending-v1", "lending-v2"], 1)]
        assert (world.traffic, world.served) == ({2: 100}, ["lending-v2"])

    def test_what_it_said_of_an_earlier_state_does_not_count(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        route = world.cluster.object("httproutes", "lending")
        assert route is not None
        assert {c["status"] for c in route["status"]["parents"][0]["conditions"]} == {"True"}
        world.cluster.gateway.accepts_after = None
        with pytest.raises(PlatformError, match="does not say Accepted"):
            release(world.place(replace(SETTINGS, route_timeout_s=0)), world.register(), 50)

    def test_a_first_route_that_it_refuses_is_taken_away(self, world: World) -> None:
        world.cluster.gateway.hostname = "other.example.com"
        with pytest.raises(PlatformError, match="NoMatchingListenerHostname"):
            release(world.place(), world.register(), 100)
        assert world.cluster.object("httproutes", "lending") is None
        assert world.store.aliases().champion is None
        world.cluster.gateway.hostname = None
        assert release(world.place(), 1, 100).traffic == {"1": 100}

    def test_a_rollback_that_it_refuses_is_none(self, world: World) -> None:
        for _ in range(2):
            release(world.place(), world.register(), 100)
        world.cluster.gateway.hostname = "other.example.com"
        with pytest.raises(PlatformError, match="NoMatchingListenerHostname"):
            rollback(world.place(), leave=2)
        assert (world.traffic, world.store.aliases().champion) == ({2: 100}, 2)
        assert "lending-v2" in world.served

    def test_a_change_that_another_makes_of_a_refused_route_is_left(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        world.cluster.gateway.hostname = "other.example.com"
        world.cluster.on_verdict = lambda name: world.cluster.edit(
            "httproutes", name, "kubectl", lambda route: route["spec"].update(hostnames=["by.hand.example.com"])
        )
        with pytest.raises(PlatformError, match="another has changed the route meanwhile"):
            release(world.place(), world.register(), 100)
        route = world.cluster.object("httproutes", "lending")
        assert route is not None
        assert route["spec"]["hostnames"] == ["by.hand.example.com"]

    def test_the_gateways_own_writing_does_not_hinder_the_way_back(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        former = json.loads(json.dumps(world.cluster.object("httproutes", "lending")))
        generation, times = former["metadata"]["generation"], iter(range(2))

        def status(plural: str, name: str) -> None:
            if next(times, None) is not None:
                world.cluster.edit(plural, name, "gateway", lambda route: None)

        world.cluster.before_apply = status
        assert restore_route(world.place().cluster, "lending", generation, former)
        world.cluster.before_apply = lambda plural, name: world.cluster.edit(plural, name, "gateway", lambda r: None)
        assert not restore_route(world.place().cluster, "lending", generation, former)


class TestTheDrain:
    def test_a_version_without_traffic_is_kept_for_what_is_on_its_way(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        assert world.paused == [], "there is nothing to drain"
        place, seen = world.place(), []
        place.cluster.pause = lambda seconds: seen.append((seconds, world.served, world.store.aliases().champion))  # type: ignore[assignment]
        release(place, world.register(), 100)
        assert seen == [(7, ["lending-v1", "lending-v2"], 2)]
        assert world.served == ["lending-v2"]


class TestServicesThatServe:
    """A release touches its own version's service alone, and a version keeps its server's image."""

    def test_the_champion_serves_on_as_it_is_beside_a_canary(self, world: World) -> None:
        first, second = (replace(SETTINGS, image=f"registry.example.com/serving@sha256:{d}") for d in ("aa", "bb"))
        release(world.place(first), world.register(), 100)
        champion = json.loads(json.dumps(world.service(1)))
        settings = replace(second, cpu="4", max_replicas=3, labels={"team": "other"})
        release(world.place(settings), world.register(), 10)
        for by_hand in (None, "registry.example.com/serving@sha256:cc"):
            release(world.place(replace(settings, image=by_hand)), 2, 50)
            assert world.service(2)["spec"]["predictor"]["model"]["image"] == second.image
            assert world.service(2)["metadata"]["generation"] == 1
        rollback(world.place(settings), leave=2)
        for part in ("spec", "metadata"):
            assert world.service(1)[part] == champion[part]

    def test_a_rollback_brings_the_version_back_with_the_image_that_it_had(self, world: World) -> None:
        image = "registry.example.com/serving@sha256:aa"
        release(world.place(replace(SETTINGS, image=image)), world.register(), 100)
        release(world.place(replace(SETTINGS, image="registry.example.com/serving@sha256:bb")), world.register(), 100)
        assert world.served == ["lending-v2"]
        rollback(world.place(replace(SETTINGS, image=None)), leave=2)
        assert world.service(1)["spec"]["predictor"]["model"]["image"] == image

    def test_one_that_never_had_an_image_of_its_own_gets_none_by_a_later_release(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        del world.cluster.objects[("tidemill", "inferenceservices", "lending-v1")]
        release(world.place(replace(SETTINGS, image="registry.example.com/serving@sha256:bb")), world.register(), 10)
        assert "image" not in world.service(1)["spec"]["predictor"]["model"]

    def test_a_releases_own_version_is_made_what_the_settings_say(self, world: World) -> None:
        release(world.place(), world.register(), 100)
        release(world.place(replace(SETTINGS, max_replicas=3)), 1, 100)
        assert world.service(1)["spec"]["predictor"]["maxReplicas"] == 3
