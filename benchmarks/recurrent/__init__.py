"""Backpropagation through time, in several engines: what benchmarks/bptt.py runs."""
