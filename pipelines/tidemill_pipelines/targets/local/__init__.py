"""This machine: each task in the interpreter of its image's environment, no Docker and no cloud."""
