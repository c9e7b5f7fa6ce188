"""A tiny model that shows whose row it answered: its output is a known function of every input."""
