"""What crosses a wire. Pure: no asyncio, no socket, no Redis, no clock."""
