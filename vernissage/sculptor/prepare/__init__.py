"""Makes the dataset: grown structures and those of the user, with captions."""
