"""What the command line, the gallery and model servers call."""
