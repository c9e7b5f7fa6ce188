"""The model server, and what stages and commands need to find, start and ask one.

``python -m tidemill.serving`` answers predictions in TensorFlow Serving's REST format. Only ``model`` imports
tensorflow; ``registry``, ``endpoints`` and ``client`` need the standard library alone, because the control
environment uses them too.
"""
