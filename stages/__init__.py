"""Thin DVC stages: read parameters, call the wing, write outs."""
