"""Photos in, training crops out."""
