"""Plain training against DREAM."""
