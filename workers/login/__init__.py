"""Accounts, the waiting room and signing in."""
