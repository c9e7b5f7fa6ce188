"""Being told to end: by a machine that is taken away, a task that is cancelled, or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tidemill.errors import Preempted


class Notice:
    """Whether this process was told to end.

    Outside of :meth:`deferred` the signal raises :class:`Preempted` where the main thread stands. Within, it only
    sets :attr:`asked`: a training looks at that between blocks of steps, agrees with its other workers on the step to
    stop at, saves, and raises :meth:`preempted` itself. After :meth:`done` there is nothing left to give up.

    Args:
        listens: signals that are taken to it by :meth:`listen`.
    """

    def __init__(self, *listens: signal.Signals) -> None:
        self._listens = listens
        self._signal: signal.Signals | None = None
        self._deferrals = 0
        self._done = False

    @property
    def asked(self) -> bool:
        return self._signal is not None

    @property
    def grace_s(self) -> float:
        """Seconds until whoever asked loses patience: after Ctrl-C the local target waits 10, a pod is given 30."""
        return 8.0 if self._signal is signal.SIGINT else 20.0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Leaves it to the block to end when it is asked to.

        Raises:
            Preempted: at the block's end, if it was asked to end before it was done and didn't.
        """
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
        if self.asked and not self._deferrals and not self._done:
            raise self.preempted()

    def done(self) -> None:
        """Tells that the work is done: a signal that comes now, or that came too late to matter, doesn't undo it."""
        self._done = True

    def preempted(self, step: int | None = None) -> Preempted:
        """Returns the error to end with.

        Args:
            step: of the checkpoint that was saved for the retry.
        """
        got = f"signal {self._signal.name}" if self._signal else "another worker was told to end"
        saved = "" if step is None else f", with all saved at step {step}"
        return Preempted(
            "train", f"was told to end before it was done{saved}", got, "run it again: it goes on from there"
        )

    def tell(self, number: int) -> None:
        """Tells that this process is to end.

        Raises:
            Preempted: outside of :meth:`deferred`, until the work is done.
        """
        self._signal = signal.Signals(number)
        if not self._deferrals and not self._done:
            raise self.preempted()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.tell(number)

    def listen(self) -> None:
        """Has the signals brought here, if they were before: TensorFlow takes SIGTERM when it connects workers."""
        for number in self._listens:
            signal.signal(number, self._receive)


@contextmanager
def listening() -> Iterator[Notice]:
    """Yields the notice that SIGTERM and SIGINT are taken to while the block runs."""
    notice = Notice(signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    notice.listen()
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
