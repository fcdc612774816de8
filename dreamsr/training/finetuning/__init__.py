"""Weights fitted to a user's own pictures, and what that gained and cost."""
