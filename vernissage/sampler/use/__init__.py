"""What the command line and users of diffusers call."""
