"""The client library, against a real socket that speaks the server's side."""
