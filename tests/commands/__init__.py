"""Tests of `lobbyctl`: what it decides, and what it does with real processes."""
