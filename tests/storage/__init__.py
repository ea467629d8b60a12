"""The stores, each test on every kind of server that it must run on."""
