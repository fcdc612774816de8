"""A page on this machine for enlarging pictures without a shell."""
