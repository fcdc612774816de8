"""What results are worth and what they cost."""
