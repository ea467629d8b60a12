"""What alembic runs to migrate: over the connection that `storage.migrations` has opened and locked."""

from alembic import context

from storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
