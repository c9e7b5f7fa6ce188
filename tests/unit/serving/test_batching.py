"""Requests share calls of the model, and never each other's answers or faults."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tidemill.serving.batching import Arrays, Batcher
from tidemill.serving.payload import Call, Refused

SIZES = (1, 2, 4, 8)


class Model:
    """Doubles its input; refuses -1, fails on -2. ``gate`` holds its first call until it is set."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.observed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, signature: str, arrays: Arrays) -> Arrays:
        self.gate.wait(10)
        values = arrays["x"]
        self.sizes.append(len(values))
        if (values == -1).any():
            raise ValueError("a value")
        if (values == -2).any():
            raise RuntimeError("a value")
        return {"y": values * (2 if signature == "double" else 3)}


def call(*values: int, signature: str = "double") -> Call:
    return Call(signature, {"x": np.array(values)}, len(values), columnar=False)


def batcher(model: Model, max_queued_rows: int = 1000, workers: int = 1) -> Batcher:
    def bad_input(error: Exception) -> bool:
        return isinstance(error, ValueError)

    executor = ThreadPoolExecutor(workers)
    return Batcher(model.predict, bad_input, executor, SIZES, workers, max_queued_rows, model.observed.append)


def run(model: Model, *calls: Call, **options: int) -> list[list[int] | BaseException]:
    """Submits calls at once, the first of which occupies the model until all have arrived."""

    async def all_of_them() -> list[list[int] | BaseException]:
        model.gate.clear()
        merging = batcher(model, **options)
        tasks = [asyncio.create_task(merging.submit(each)) for each in calls]
        await asyncio.sleep(0.05)
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert merging.queued_rows == 0
        return [a if isinstance(a, BaseException) else a["y"].tolist() for a in answers]

    return asyncio.run(all_of_them())


def test_a_lone_request_is_answered_without_waiting_for_others() -> None:
    model = Model()
    assert run(model, call(1)) == [[2]]
    assert model.sizes == [1]


def test_requests_that_arrive_during_a_call_share_the_next() -> None:
    model = Model()
    assert run(model, call(0), call(1), call(2, 3), call(4)) == [[0], [2], [4, 6], [8]]
    assert model.sizes == [1, 4]
    assert model.observed == [1, 4]


def test_batches_are_padded_to_few_sizes() -> None:
    model = Model()
    assert run(model, call(1, 2, 3)) == [[2, 4, 6]]
    assert run(model, *(call(i) for i in range(6))) == [[2 * i] for i in range(6)]
    assert model.sizes == [4, 1, 8]
    assert model.observed == [3, 1, 5]


def test_a_request_larger_than_the_largest_batch_is_answered_whole() -> None:
    model = Model()
    assert run(model, call(*range(19))) == [[2 * i for i in range(19)]]
    assert model.sizes == [8, 8, 4]


def test_signatures_are_not_mixed() -> None:
    model = Model()
    answers = run(model, call(1), call(1, signature="triple"), call(1), call(1, signature="triple"))
    assert answers == [[2], [3], [2], [3]]


def test_a_bad_request_fails_alone_and_its_row_is_named() -> None:
    first, good, bad, other = run(Model(), call(0), call(1), call(5, 6, -1, 7), call(2))
    assert (first, good, other) == ([0], [2], [4])
    assert isinstance(bad, Refused)
    assert bad.status == 400
    assert str(bad) == "instances[2]: the model cannot take this value (ValueError)"


def test_a_failure_of_the_model_reaches_only_the_request_that_caused_it() -> None:
    first, good, bad = run(Model(), call(0), call(1), call(-2))
    assert (first, good) == ([0], [2])
    assert isinstance(bad, RuntimeError)


def test_too_many_waiting_rows_are_refused_with_503() -> None:
    answers = run(Model(), *(call(i, i) for i in range(6)), max_queued_rows=4)
    assert answers[:3] == [[0, 0], [2, 2], [4, 4]]
    for refused in answers[3:]:
        assert isinstance(refused, Refused)
        assert (refused.status, refused.retry_after_s) == (503, 1)


def test_a_client_that_has_gone_disturbs_nobody() -> None:
    model = Model()

    async def scenario() -> list[int]:
        model.gate.clear()
        merging = batcher(model)
        gone, stays = (asyncio.create_task(merging.submit(call(i))) for i in (1, 2))
        await asyncio.sleep(0.05)
        gone.cancel()
        model.gate.set()
        return (await stays)["y"].tolist()

    assert asyncio.run(scenario()) == [4]


@pytest.mark.parametrize("workers", [1, 3])
def test_under_load_every_request_gets_its_own_answer(workers: int) -> None:
    model, chance = Model(), random.Random(0)

    async def scenario() -> None:
        merging = batcher(model, workers=workers)

        async def client(number: int) -> None:
            for i in range(50):
                values = [number * 1000 + i * 10 + k for k in range(chance.randint(1, 5))]
                signature = chance.choice(("double", "triple"))
                answer = await merging.submit(call(*values, signature=signature))
                assert answer["y"].tolist() == [v * (2 if signature == "double" else 3) for v in values]

        await asyncio.gather(*(client(number) for number in range(1, 20)))

    asyncio.run(scenario())
    assert set(model.sizes) <= set(SIZES)
    assert len(model.sizes) < 19 * 50
