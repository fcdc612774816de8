"""Comparing methods on the same pictures, by rules that are named with every figure."""
