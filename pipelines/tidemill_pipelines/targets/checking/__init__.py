"""What a backend would refuse or silently change in a compiled pipeline, told before it is submitted."""
