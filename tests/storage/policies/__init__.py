"""Policies: what they are, what follows from them, where they are kept."""
