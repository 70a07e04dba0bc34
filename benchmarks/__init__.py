"""The benchmarks of Paygent: ``python -m benchmarks [NAME ...]``; see ``docs/benchmarks.md``."""
