"""What people run: setup, run, test, check and the operators' command line."""
