"""Work in a forked process, whose end is noticed however it comes.

A pool would hang when one of its processes is killed, and an orphaned pool would outlive a killed parent. Here a
process does one thing, answers through a pipe of its own, and ends.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from tidemill.errors import PlatformError, TidemillError

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Forked(Generic[Result]):
    """A call of ``function(argument)`` in a forked process, begun at once.

    Forked, because a fresh interpreter would import for seconds again. No thread pool may have been used before.
    """

    def __init__(self, function: Callable[[Argument], Result], argument: Argument) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_answer, args=(sender, function, argument), daemon=True)
        self._process.start()
        sender.close()  # the child's copy is then the only one, and its end the end of the pipe

    def result(self) -> Result:
        """Waits for the result.

        Raises:
            TidemillError: the one that the function raised, or a PlatformError if the process was killed.
            RuntimeError: if the function raised anything else; its trace went to standard error.
        """
        try:
            answer = self._receiver.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            if code < 0:
                where = f"process {self._process.pid}"
                remedy = "give the stage more memory, if that ran out; run again"
                raise PlatformError(
                    where, "was to describe some columns", f"killed by signal {-code}", remedy
                ) from None
            raise RuntimeError(f"a forked process failed with exit code {code}") from None
        self._process.join()
        if isinstance(answer, TidemillError):
            raise answer
        return answer  # type: ignore[no-any-return]

    def abandon(self) -> None:
        """Ends the process, finished or not."""
        self._process.kill()
        self._process.join()


def _answer(sender: Connection, function: Callable[[Any], Any], argument: Any) -> None:
    try:
        answer: Any = function(argument)
    except TidemillError as error:
        answer = error
    sender.send(answer)
