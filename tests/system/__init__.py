"""The whole system as it runs: real processes, stores and sockets."""
