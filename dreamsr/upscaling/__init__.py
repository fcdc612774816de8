"""Enlarging: one picture, or many files."""
