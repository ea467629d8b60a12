"""Slow work: tasks as players ask for them, and as workers do them and die of them."""
