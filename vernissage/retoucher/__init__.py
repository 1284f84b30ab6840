"""The retoucher: chooses photographic edits step by step."""
