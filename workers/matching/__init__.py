"""The matching worker: finds opponents for those who ask, and keeps the sessions that they play in."""
