"""Tests of protocol/: bytes in, messages out, and nothing that bytes can do to the process."""
