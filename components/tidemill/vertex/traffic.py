"""Which deployed model gets how many percent of an endpoint's requests."""

from __future__ import annotations

from collections.abc import Mapping


def split_with(current: Mapping[str, int], chosen: str, percent: int) -> dict[str, int]:
    """Returns a traffic split in which ``chosen`` has its share, and the others keep their proportions.

    Shares are whole percents and sum to 100; whoever has none is left out. The first deployed model gets all.

    Args:
        current: percent by deployed model's id, as the endpoint has it now.
        percent: 1 to 100.
    """
    others = {identity: share for identity, share in current.items() if share > 0 and identity != chosen}
    if percent == 100 or not others:
        return {chosen: 100}
    left, total = 100 - percent, sum(others.values())
    exact = {identity: left * share / total for identity, share in others.items()}
    shares = {identity: int(share) for identity, share in exact.items()}
    remainders = sorted(others, key=lambda identity: (shares[identity] - exact[identity], identity))
    for identity in remainders[: left - sum(shares.values())]:
        shares[identity] += 1
    return {chosen: percent, **{identity: share for identity, share in sorted(shares.items()) if share > 0}}


def idle(deployed: list[str], split: Mapping[str, int], but: str) -> list[str]:
    """Returns the deployed models that get no requests and may go, in their order; never ``but``."""
    return [identity for identity in deployed if split.get(identity, 0) == 0 and identity != but]
