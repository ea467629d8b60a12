"""Tests, against real stores, sockets and processes."""
