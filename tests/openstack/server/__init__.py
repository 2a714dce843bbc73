"""What runs inside the stack's own processes."""

HOW = "how.json"
"""A file in the guests' folder that says how guests are booted."""
GPUS = 4
"""Devices of each host."""

MADE = "made"
"""Holds the intent of every machine that nova gave a host, one a line."""
