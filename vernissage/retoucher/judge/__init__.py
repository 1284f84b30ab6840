"""Baselines, benchmark, robustness and the report."""
