"""Pages and pictures on loopback."""
