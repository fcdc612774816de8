"""What the numbers of a picture mean: ICC profiles, and all that says it in their place."""
