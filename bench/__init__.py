"""Benchmarks: each measures lobbyd and the limit of the machine in the same run."""
