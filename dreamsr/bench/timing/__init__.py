"""How fast methods are, beside each other."""
