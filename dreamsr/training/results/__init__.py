"""What a training run leaves in its folder, and what it measures on the way."""
