"""Baselines, benchmark and robustness."""
