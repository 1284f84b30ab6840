"""What the command line and the gallery call."""
