"""The queue server's own tests."""
