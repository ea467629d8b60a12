"""Where the data lives: the only room that spells a Redis key, a Lua Function or an SQL table."""
