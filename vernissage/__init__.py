"""Three agents that make pictures better, in one pipeline that anyone can rebuild."""
