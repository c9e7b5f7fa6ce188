"""The parts of the ``tidemill`` command, one module per group."""
