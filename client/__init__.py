"""The asyncio client that games, tests and load generators use."""
