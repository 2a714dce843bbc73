"""Benchmarks against named peers; each module takes --quick and --json FILE."""
