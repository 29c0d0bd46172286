"""Benchmarks: each figure of docs/benchmarks.md is printed by `make bench`."""
