"""Tests of the matching worker."""
