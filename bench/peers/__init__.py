"""Peers: other schedulers, run on the same input where they are installed."""
