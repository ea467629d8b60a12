"""How any process of lobbyd lives; it knows no game and no Redis key."""
