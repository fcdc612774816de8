"""Picture files in and out, nothing lost in silence."""
