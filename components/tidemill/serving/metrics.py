"""What the server tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_LATENCIES_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The metrics of one server, in a collector registry of their own."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        common = {"registry": self.registry, "namespace": "tidemill_serving"}
        self.requests = Counter("requests", "Answered requests.", ("route", "code"), **common)
        self.latency = Histogram(
            "request_seconds",
            "From the first byte of a request to its answer.",
            ("route",),
            buckets=_LATENCIES_S,
            **common,
        )
        self.batch_rows = Histogram(
            "batch_rows", "Rows of a TensorFlow call.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), **common
        )
        self.in_flight = Gauge("in_flight", "Requests being answered.", **common)
        self.queued_rows = Gauge("queued_rows", "Rows that wait for a TensorFlow call.", **common)
        self.version = Gauge("model_version", "Version that answers by default; 0 if none.", ("model",), **common)
        self.loaded = Gauge("versions_loaded", "Versions in memory.", **common)
        self.load_failures = Counter("load_failures", "Versions that could not be loaded.", **common)
        self.behind = Gauge(
            "champion_behind", "1 while the version that the registry calls champion does not answer.", **common
        )
        self.draining = Gauge("draining", "1 while no new requests are taken.", **common)
        self.version.labels(model).set(0)
