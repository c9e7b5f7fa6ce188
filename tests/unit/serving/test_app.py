"""What a client sees over HTTP."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tidemill.serving.client import Answer, Client
from tidemill.serving.logs import JsonLines
from tidemill.serving.settings import Settings

PREDICT = "/v1/models/toy:predict"
ROW = {"age": 31.5, "hours": 40, "job": "clerk"}


def raw(port: int, text: bytes) -> bytes:
    """Sends bytes and returns all that comes back until the server closes or a second passes."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(text)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pass
        return answer


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_rows_are_answered_in_tensorflow_servings_format(client: Client, toy: Any) -> None:
    answer = client.post(PREDICT, {"instances": [ROW, {"age": None}, {}]})
    assert answer.status == 200
    predictions = answer.value["predictions"]
    assert [p["probability"] for p in predictions] == pytest.approx(
        [toy.probability(row, 0) for row in (ROW, {}, {})], abs=1e-6
    )
    assert predictions[0]["label"] == ">50K"
    assert answer.headers["x-model-version"] == "1"


def test_columns_are_answered_in_columns(client: Client, toy: Any) -> None:
    answer = client.post(PREDICT, {"inputs": {"age": [31.5, None], "job": ["clerk", "x"]}, "signature_name": ""})
    expected = [toy.probability({"age": 31.5, "job": "clerk"}, 0), toy.probability({"job": "x"}, 0)]
    assert answer.value["outputs"]["probability"] == pytest.approx(expected, abs=1e-6)


def test_serialized_examples_are_answered_as_raw_rows_are(client: Client) -> None:
    proto = tf.train.Example()
    proto.features.feature["age"].float_list.value.append(ROW["age"])
    proto.features.feature["hours"].int64_list.value.append(ROW["hours"])
    proto.features.feature["job"].bytes_list.value.append(ROW["job"].encode())
    encoded = {"b64": base64.b64encode(proto.SerializeToString()).decode()}
    answer = client.post(PREDICT, {"signature_name": "serving_examples", "instances": [encoded]})
    assert answer.value == client.post(PREDICT, {"instances": [ROW]}).value


def test_an_example_that_cannot_be_parsed_is_named_by_its_row(client: Client) -> None:
    good, bad = {"b64": ""}, {"b64": base64.b64encode(b"\xff\xff not a proto").decode()}
    body = {"signature_name": "serving_examples", "instances": [good, good, bad]}
    answer = client.post(PREDICT, body)
    assert answer.status == 400
    assert answer.error.startswith("instances[2]: the model cannot take this value")
    assert "proto" not in answer.error


def test_a_signature_with_one_output_gives_bare_values(client: Client) -> None:
    answer = client.post(PREDICT, {"signature_name": "transform_features", "instances": [{"age": 50}]})
    assert answer.value == {"predictions": [0.5]}


def test_a_version_can_be_asked_by_its_number(client: Client) -> None:
    assert client.post("/v1/models/toy/versions/1:predict", {"instances": [ROW]}).status == 200


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/models/other:predict", "no such model; this server has toy"),
        ("/v1/models/toy/versions/7:predict", "no version 7"),
        ("/v1/models/toy/versions/x:predict", "whole numbers"),
        ("/v1/models/toy/versions/99999999999999999999:predict", "whole numbers"),
        ("/v2/models", "Not Found"),
    ],
)
def test_what_is_not_there_is_404(client: Client, path: str, said: str) -> None:
    answer = client.post(path, {"instances": [ROW]})
    assert answer.status == 404
    assert said in answer.error


def test_an_unknown_signature_is_404(client: Client) -> None:
    assert client.post(PREDICT, {"instances": [ROW], "signature_name": "nope"}).status == 404


def test_a_malformed_request_is_400_with_faults_and_request_id(client: Client) -> None:
    answer = client.post(PREDICT, {"instances": [{"agee": 1}]})
    assert answer.status == 400
    assert answer.value["faults"] == [{"message": answer.error, "field": "agee", "row": 0}]
    assert answer.value["request_id"] == answer.headers["x-request-id"]


def test_a_wrong_method_is_405(client: Client) -> None:
    for method, path, allowed in (
        ("GET", PREDICT, ["POST"]),
        ("DELETE", PREDICT, ["POST"]),
        ("POST", "/livez", ["GET", "HEAD"]),
    ):
        answer = client.send(method, path)
        assert answer.status == 405
        assert sorted(answer.headers["allow"].split(", ")) == allowed
        assert answer.error == "Method Not Allowed"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("", 200),
        ("text/xml", 415),
        ("multipart/form-data", 415),
    ],
)
def test_only_json_is_taken(server: Any, content_type: str, status: int) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    answer = raw(server.port, request("POST", PREDICT, body, Content_Type=content_type))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_a_compressed_body_is_415(server: Any) -> None:
    assert b"HTTP/1.1 415" in raw(server.port, request("POST", PREDICT, b"x", Content_Encoding="gzip"))


def test_a_body_over_the_limit_is_413_announced_or_not(server: Any) -> None:
    body = b" " * ((1 << 16) + 1)
    assert b"HTTP/1.1 413" in raw(server.port, request("POST", PREDICT, body))
    chunked = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    assert b"HTTP/1.1 413" in raw(server.port, chunked + chunks)


def test_too_many_rows_are_413(client: Client) -> None:
    assert client.post(PREDICT, {"instances": [ROW] * 65}).status == 413


def test_something_that_is_not_http_harms_nothing(server: Any, client: Client) -> None:
    assert b"400" in raw(server.port, b"\x16\x03\x01 hello\r\n\r\n")
    assert client.get("/livez").status == 200


def test_a_client_that_goes_away_while_sending_harms_nothing(server: Any, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
    deadline = time.monotonic() + 5
    while 'code="499"' not in client.get("/metrics").value and time.monotonic() < deadline:
        time.sleep(0.02)
    assert 'code="499"' in client.get("/metrics").value


def test_request_ids_are_echoed_or_made_and_never_dangerous(server: Any, client: Client) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    assert b"x-request-id: abc-1" in raw(server.port, request("POST", PREDICT, body, X_Request_Id="abc-1"))
    for harmful in ('"}{"', "a" * 200):
        answer = raw(server.port, request("POST", PREDICT, body, X_Request_Id=harmful))
        assert harmful.encode() not in answer
        assert b"x-request-id: " in answer
    assert len(client.get("/livez").headers["x-request-id"]) == 32


def test_status_is_tensorflow_servings(client: Client) -> None:
    status = client.get("/v1/models/toy").value["model_version_status"]
    expected = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert status == [{**expected, "default": True}]
    assert client.get("/v1/models/toy/versions/1").value["model_version_status"] == status
    for missing in ("/v1/models/other", "/v1/models/toy/versions/2", "/v1/models/toy/versions/x"):
        assert client.get(missing).status == 404


def test_metadata_describes_the_signatures(client: Client) -> None:
    metadata = client.get("/v1/models/toy/metadata").value
    assert metadata == client.get("/v1/models/toy/versions/1/metadata").value
    assert metadata["model_spec"] == {"name": "toy", "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "serving_examples", "transform_features"}
    assert signatures["serving_default"]["inputs"]["hours"]["dtype"] == "DT_INT64"
    assert signatures["serving_default"]["outputs"]["probability"]["dtype"] == "DT_FLOAT"
    assert metadata["model"]["classes"] == ["<=50K", ">50K"]


def test_vertex_routes_answer(client: Client) -> None:
    assert client.post("/ask", {"instances": [ROW], "parameters": None}).status == 200
    assert client.get("/well").status == 200


def test_health_and_metrics(client: Client) -> None:
    assert client.get("/livez").value == {"status": "live"}
    assert client.get("/readyz").value == {"status": "ready", "version": 1}
    client.post(PREDICT, {"instances": [ROW]})
    metrics = client.get("/metrics").value
    for line in (
        'tidemill_serving_requests_total{code="200",route="predict"}',
        'tidemill_serving_request_seconds_bucket{le="0.005",route="predict"}',
        'tidemill_serving_batch_rows_bucket{le="1.0"}',
        'tidemill_serving_model_version{model="toy"} 1.0',
        "tidemill_serving_in_flight 1.0",
        "tidemill_serving_champion_behind 0.0",
        "tidemill_serving_draining 0.0",
        "process_resident_memory_bytes",
    ):
        assert line in metrics


def test_concurrent_requests_never_get_each_others_answers(server: Any, toy: Any) -> None:
    wrong: list[Answer] = []

    def ask(number: int) -> None:
        with server.client() as mine:
            for i in range(40):
                rows = [{"age": number, "hours": i, "job": "x" * k} for k in range(1 + i % 4)]
                answer = mine.post(PREDICT, {"instances": rows})
                got = [p["probability"] for p in answer.value["predictions"]]
                if got != pytest.approx([toy.probability(row, 0) for row in rows], abs=1e-6):
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_bad_request_does_not_spoil_those_that_run_beside_it(server: Any) -> None:
    statuses: dict[str, set[int]] = {"good": set(), "bad": set()}
    bad = {"signature_name": "serving_examples", "instances": [{"b64": "//8="}]}
    good = {"signature_name": "serving_examples", "instances": [{"b64": ""}]}

    def ask(kind: str, body: Any) -> None:
        with server.client() as mine:
            for _ in range(30):
                statuses[kind].add(mine.post(PREDICT, body).status)

    threads = [threading.Thread(target=ask, args=a) for a in [("good", good), ("bad", bad)] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {"good": {200}, "bad": {400}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FEATURES = st.dictionaries(st.sampled_from(["age", "hours", "job", "b64", "x"]), JSON, max_size=4)
REQUESTS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "instances": JSON | st.lists(FEATURES | JSON, max_size=4),
        "inputs": JSON
        | FEATURES
        | st.dictionaries(st.sampled_from(["age", "hours", "job"]), st.lists(JSON, max_size=3)),
        "signature_name": st.sampled_from(["serving_default", "serving_examples", "transform_features"]) | JSON,
        "parameters": JSON,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=REQUESTS)
@example(value={"instances": [{"job": "\x00"}]})
@example(value={"signature_name": "serving_examples", "instances": ["\udcff".encode("utf-8", "replace").decode()]})
def test_no_json_whatever_makes_the_server_fail(client: Client, value: Any) -> None:
    answer = client.send("POST", PREDICT, json.dumps(value).encode())
    assert answer.status in (200, 400, 404, 413)
    assert ("error" in answer.value) == (answer.status != 200)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_no_bytes_whatever_make_the_server_fail(client: Client, body: bytes) -> None:
    assert client.send("POST", PREDICT, body).status in (200, 400)


def test_what_the_model_itself_gets_wrong_is_500_without_a_trace(
    server: Any, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(signature: str, arrays: Any) -> Any:
        raise RuntimeError(f"secret in {signature} of {len(arrays)}")

    monkeypatch.setattr(server.server.versions.default.batcher, "_predict", fail)
    answer = client.post(PREDICT, {"instances": [ROW]})
    assert answer.status == 500
    assert answer.error == "internal error"
    deadline = time.monotonic() + 5
    while not (logged := [r for r in caplog.records if r.message == "request_failed"]) and time.monotonic() < deadline:
        time.sleep(0.02)  # the line is written after the answer
    line = json.loads(JsonLines().format(logged[0]))
    assert line["error"] == "RuntimeError"
    assert line["request_id"] == answer.headers["x-request-id"]
    assert any("batching.py" in frame for frame in line["at"])
    assert "secret" not in json.dumps(line)


@pytest.fixture
def held(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds the model's answers until it is set."""
    batcher, gate = server.server.versions.default.batcher, threading.Event()
    predict = batcher._predict

    def wait(signature: str, arrays: Any) -> Any:
        gate.wait(20)
        return predict(signature, arrays)

    monkeypatch.setattr(batcher, "_predict", wait)
    yield gate
    gate.set()


def test_an_overloaded_server_answers_503_with_retry_after(
    server: Any, client: Client, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.server.versions.default.batcher, "_max_queued_rows", 4)
    statuses: list[int] = []

    def ask() -> None:
        with server.client() as mine:
            statuses.append(mine.post(PREDICT, {"instances": [ROW] * 4}).status)

    threads = [threading.Thread(target=ask) for _ in range(2)]  # one is being answered, one waits
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    answer = client.post(PREDICT, {"instances": [ROW]})
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert client.get("/readyz").status == 200
    held.set()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]


def test_draining_answers_what_is_in_flight_and_refuses_the_rest(serve: Callable[..., Any], models: list[Path]) -> None:
    with serve(Settings(storage_uri=str(models[0]), drain_grace_s=0.5)) as running:
        running.wait_for_version(1)
        batcher, gate, answers = running.server.versions.default.batcher, threading.Event(), []
        predict = batcher._predict

        def wait(signature: str, arrays: Any) -> Any:
            gate.wait(20)
            return predict(signature, arrays)

        batcher._predict = wait

        def ask() -> None:
            with running.client() as mine:
                answers.append(mine.post(PREDICT, {"instances": [ROW]}).status)

        in_flight = threading.Thread(target=ask)
        in_flight.start()
        time.sleep(0.2)
        running.server.end()
        time.sleep(0.1)
        with running.client() as late:
            refused, unready = late.post(PREDICT, {"instances": [ROW]}), late.get("/readyz")
            alive = late.get("/livez")
        assert (refused.status, unready.status, alive.status) == (503, 503, 200)
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert running.thread.is_alive()
        gate.set()
        in_flight.join()
        running.thread.join(10)
        assert not running.thread.is_alive()
        assert answers == [200]


def test_a_body_that_never_comes_is_408(serve: Callable[..., Any], models: list[Path]) -> None:
    with serve(Settings(storage_uri=str(models[0]), body_timeout_s=0.2)) as running:
        running.wait_for_version(1)
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        assert b"HTTP/1.1 408" in raw(running.port, head.encode())
