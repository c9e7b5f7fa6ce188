"""Micro-batching: requests that arrive while TensorFlow is busy share its next call.

No timer holds a request back. An idle model is called at once with what there is, so that a lone request waits for
nothing; under load, the requests that queue up during one call make up the next. The batch thus grows with the
load, and the added latency is at most the call in progress.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from tidemill.serving.payload import Call, Fault, Refused

Arrays = Mapping[str, np.ndarray]
Predict = Callable[[str, Arrays], Arrays]


@dataclass
class _Waiting:
    call: Call
    answer: asyncio.Future[Arrays]


class Batcher:
    """Merges calls of the same signature in the order of their arrival. Belongs to one event loop.

    Args:
        predict: takes a signature and arrays of one of ``sizes`` rows; runs in ``executor``.
        bad_input: whether an exception of ``predict`` is the input's fault.
        sizes: rows of a TensorFlow call, ascending: batches are padded up, so that shapes are few and all warm.
        workers: calls at the same time.
        max_queued_rows: rows that may wait.
        observe: told the rows of each TensorFlow call, before padding.
    """

    def __init__(
        self,
        predict: Predict,
        bad_input: Callable[[Exception], bool],
        executor: Executor,
        sizes: Sequence[int],
        workers: int,
        max_queued_rows: int,
        observe: Callable[[int], None],
    ) -> None:
        self._predict, self._bad_input, self._executor, self._sizes = predict, bad_input, executor, tuple(sizes)
        self._idle_workers, self._max_queued_rows, self._observe = workers, max_queued_rows, observe
        self._queue: deque[_Waiting] = deque()
        self.queued_rows = 0

    async def submit(self, call: Call) -> Arrays:
        """Returns the outputs for the rows of ``call``, and for no others.

        Raises:
            Refused: 503 if too much is waiting, 400 if the model cannot take one of the rows.
        """
        if self.queued_rows >= self._max_queued_rows:
            raise Refused(503, Fault("too many requests are waiting"), retry_after_s=1)
        waiting = _Waiting(call, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self.queued_rows += call.rows
        self._start()
        return await waiting.answer

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle_workers and self._queue:
            batch = self._take()
            self._idle_workers -= 1
            done = loop.run_in_executor(self._executor, self._run, [waiting.call for waiting in batch])
            done.add_done_callback(functools.partial(self._finish, batch))

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            call = self._queue[0].call
            if batch and (call.signature != batch[0].call.signature or rows + call.rows > self._sizes[-1]):
                break
            batch.append(self._queue.popleft())
            rows += call.rows
        self.queued_rows -= rows
        return batch

    def _finish(self, batch: Sequence[_Waiting], done: asyncio.Future[list[Arrays | Exception]]) -> None:
        self._idle_workers += 1
        self._start()
        for waiting, answer in zip(batch, done.result(), strict=True):
            if waiting.answer.done():  # its client has gone
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)

    def _run(self, calls: Sequence[Call]) -> list[Arrays | Exception]:
        """Answers calls of one signature together; if that fails, each by itself, so that only the bad one fails."""
        try:
            return list(self._together(calls))
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to the request that caused it
            if len(calls) > 1:
                return [answer for call in calls for answer in self._run([call])]
            return [self._blame(calls[0], error)]

    def _together(self, calls: Sequence[Call]) -> list[Arrays]:
        names = calls[0].arrays
        merged = calls[0].arrays
        if len(calls) > 1:
            merged = {name: np.concatenate([call.arrays[name] for call in calls]) for name in names}
        outputs = self._padded(calls[0].signature, merged, sum(call.rows for call in calls))
        ends = np.cumsum([call.rows for call in calls]).tolist()
        return [
            {name: output[end - call.rows : end] for name, output in outputs.items()}
            for call, end in zip(calls, ends, strict=True)
        ]

    def _padded(self, signature: str, arrays: Arrays, rows: int) -> Arrays:
        """Calls the model in pieces of at most the largest size, each padded with copies of its last row."""
        pieces = []
        for start in range(0, rows, self._sizes[-1]):
            count = min(rows - start, self._sizes[-1])
            size = next(size for size in self._sizes if size >= count)
            index = np.minimum(np.arange(size), count - 1) + start
            outputs = self._predict(signature, {name: array[index] for name, array in arrays.items()})
            self._observe(count)
            pieces.append({name: output[:count] for name, output in outputs.items()})
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _blame(self, call: Call, error: Exception) -> Exception:
        """Returns what the client is told: which row is at fault, without TensorFlow's message, which has values."""
        if not self._bad_input(error):
            return error
        good, bad = 0, call.rows  # the first `good` rows are fine together, the first `bad` rows are not
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                self._padded(call.signature, {name: array[:middle] for name, array in call.arrays.items()}, middle)
                good = middle
            except Exception:  # noqa: BLE001
                bad = middle
        row = bad - 1
        where = f"row {row} of inputs" if call.columnar else f"instances[{row}]"
        return Refused(400, Fault(f"{where}: the model cannot take this value ({type(error).__name__})", row=row))
