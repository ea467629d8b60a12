"""A socket node: it holds the players' connections and hands their requests to the queues."""
