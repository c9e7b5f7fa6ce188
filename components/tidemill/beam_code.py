"""Takes the user's modules to Beam workers, inside everything that is pickled for them.

Workers know tidemill, which is in their image, and not the modules of a problem. What Beam pickles names those by
reference, so the archive that holds them travels along and is on ``sys.path`` before the reference is followed. That
works on every runner and in every kind of worker, needs no package installed when a worker starts, and lets elements
of the user's own classes through, which pickling modules by value does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.bundle import import_from, unpack


@dataclass(frozen=True)
class _Accompanied:
    """A pickle and the archive of the modules that it names; unpickled, it is what was pickled."""

    archive: bytes
    pickled: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.archive, self.pickled)


def _unpickled(archive: bytes, pickled: bytes) -> Any:
    from apache_beam.internal import pickler

    import_from(unpack(archive))
    return pickler.loads(pickled)


@contextlib.contextmanager
def user_code_on_workers(archive: bytes | None) -> Iterator[None]:
    """Lets all that Beam pickles within the block carry ``archive``; without one nothing changes.

    Beam has no hook for this. Its one function for pickling is replaced while the pipeline is built and submitted.
    """
    if archive is None:
        yield
        return
    from apache_beam.internal import cloudpickle_pickler

    plain: Callable[..., bytes] = cloudpickle_pickler.dumps

    def accompanied(o: Any, **options: Any) -> bytes:
        # Only the outer pickle is read by whoever asked for a certain compression.
        return plain(_Accompanied(archive, plain(o, **{**options, "use_zlib": False})), **options)

    cloudpickle_pickler.dumps = accompanied
    try:
        yield
    finally:
        cloudpickle_pickler.dumps = plain
