"""The sculptor: builds block structures that hold together, from a sentence."""
