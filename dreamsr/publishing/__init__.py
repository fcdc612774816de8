"""Weights on their way to others: repositories, model cards, and the Hub's way to load them."""
