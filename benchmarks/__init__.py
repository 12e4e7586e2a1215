"""Benchmarks: `peers.py` measures side by side with the best other tools, the `bench_` modules are the asv suite."""
