"""Metrics, baselines, benchmark and robustness."""
