"""Benchmarks, metrics and the runner that scores runs on them."""
