"""Who may talk to whom, read from NetworkPolicies as Kubernetes reads them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Peer:
    """An end of a connection: a pod of a namespace, or an address outside of the cluster.

    Attributes:
        ports: the names of the pod's ports.
    """

    namespace: str | None = None
    labels: Labels = field(default_factory=dict)
    address: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Tells whether a label selector selects; the empty one selects everything."""
    known = {"matchLabels", "matchExpressions"}
    assert set(selector) <= known, selector
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", ()):
        value, values = labels.get(expression["key"]), expression.get("values", ())
        answer = {
            "Exists": value is not None,
            "DoesNotExist": value is None,
            "In": value in values,
            "NotIn": value not in values,
        }
        if not answer[expression["operator"]]:
            return False
    return True


class Network:
    """The policies of one namespace."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self._policies = [d for d in documents if d["kind"] == "NetworkPolicy"]
        self.namespace = self._policies[0]["metadata"]["namespace"]

    def allows(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Tells whether a connection to a pod's ``port`` is let out and let in."""
        return self._side("Egress", source, target, target, port, protocol) and self._side(
            "Ingress", target, source, target, port, protocol
        )

    def _side(self, side: str, subject: Peer, other: Peer, target: Peer, port: int, protocol: str) -> bool:
        if subject.namespace != self.namespace:
            return True  # other namespaces have policies of their own
        applying = [
            policy["spec"]
            for policy in self._policies
            if side in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], subject.labels)
        ]
        if not applying:
            return True
        rules = [rule for spec in applying for rule in spec.get(side.lower(), ())]
        key = "to" if side == "Egress" else "from"
        return any(
            any(self._matches(peer, other) for peer in rule[key]) and _port(rule["ports"], target, port, protocol)
            for rule in rules
        )

    def _matches(self, peer: Mapping[str, Any], other: Peer) -> bool:
        if "ipBlock" in peer:
            if other.address is None:
                return False
            address = ipaddress.ip_address(other.address)
            block = peer["ipBlock"]
            inside = address in ipaddress.ip_network(block["cidr"])
            return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except", ()))
        if other.namespace is None:
            return False
        names = {"kubernetes.io/metadata.name": other.namespace}
        here = (
            selects(peer["namespaceSelector"], names)
            if "namespaceSelector" in peer
            else other.namespace == self.namespace
        )
        return here and selects(peer.get("podSelector", {}), other.labels)


def _port(ports: list[Mapping[str, Any]], target: Peer, port: int, protocol: str) -> bool:
    return any(
        rule["protocol"] == protocol
        and port == (target.ports.get(rule["port"], -1) if isinstance(rule["port"], str) else rule["port"])
        for rule in ports
    )
