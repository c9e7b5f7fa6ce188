"""``python -m tidemill.serving``: the one place where the server reads its environment."""

from __future__ import annotations

import os
import signal
import sys

from tidemill.errors import TidemillError
from tidemill.serving.settings import read_settings

# TensorFlow's own threads cost a table's small model more in hand-overs than they win (measured: 30 % less CPU and
# half the median latency without); requests run in parallel through `--workers`. What the environment has is kept.
_SINGLE_THREADED = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
# TensorFlow's warnings of a failed operation quote the value that it failed at, and values stay out of logs.
_SILENT = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> int:
    """Serves until SIGTERM; returns the process's exit code."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the server takes over there is nothing to drain
    os.environ.update({**_SINGLE_THREADED, **_SILENT, **os.environ})
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        from tidemill.serving.server import serve

        return serve(settings)
    except TidemillError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking TensorFlow down in order takes a second and serves nobody
