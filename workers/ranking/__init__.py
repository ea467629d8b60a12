"""Scores, boards and friends."""
