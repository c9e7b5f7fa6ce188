"""KFP v2 components for the whole life of a TensorFlow model."""

__version__ = "0.1.0"
