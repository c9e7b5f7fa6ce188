"""``python -m tidemill_pipelines`` is the ``tidemill`` command."""

from tidemill_pipelines.cli import main

main()
