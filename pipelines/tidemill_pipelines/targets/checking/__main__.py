"""``python -m tidemill_pipelines.targets.checking`` prints CHECKS.md."""

from tidemill_pipelines.targets.checking.table import documentation

print(documentation(), end="")
