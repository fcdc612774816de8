"""What a user asks for: enlarge, compare, train, measure. Tasks print nothing; they report through callbacks."""
