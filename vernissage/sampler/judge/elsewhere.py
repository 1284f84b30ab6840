"""Answers requests in a process of its own, from files: ``python -m vernissage.sampler.judge.elsewhere FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from vernissage.sampler.judge.sameness_cases import answer_elsewhere

if __name__ == "__main__":
    answer_elsewhere(Path(sys.argv[1]))
