"""Tests of the socket node that need no other process."""
