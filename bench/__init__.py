"""Benchmarks: `python -m bench`; README.md beside this file says what each number means."""
