"""Other task queues, measured beside ours by `bench.tasks`. Each program runs in their own environment."""
