"""The long-running daemons: each domain's package consumes its queue and answers."""
