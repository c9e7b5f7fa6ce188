"""``python -m tidemill.serving``: the one place where the server reads its environment."""

from __future__ import annotations

import os
import signal
import sys

from tidemill.errors import TidemillError
from tidemill.serving.settings import read_settings


def main() -> int:
    """Serves until SIGTERM; returns the process's exit code."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the server takes over there is nothing to drain
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
