"""One file a revision, in order; alembic loads them by their path."""
