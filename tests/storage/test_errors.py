"""What a Redis that takes no work now is called."""

import pytest
from redis.exceptions import ResponseError

from storage.connections import connect
from storage.errors import StoreAway, redis_away_is_store_away
from tests.servers import RedisServer


@pytest.mark.parametrize("is_transaction", [False, True])
async def test_a_redis_without_its_replicas_is_away_for_a_pipeline_too(
    own_redis: RedisServer, is_transaction: bool
) -> None:
    async with connect(own_redis.url) as redis:
        await redis.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreAway, match="takes no work now"), redis_away_is_store_away():
            await redis.set("key", "value")
        pipeline = redis.pipeline(transaction=is_transaction)
        pipeline.get("key")
        pipeline.set("key", "value")
        with pytest.raises(StoreAway, match="takes no work now"), redis_away_is_store_away():
            await pipeline.execute()


async def test_what_redis_never_takes_stays_an_error(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.set("BUSY text", "value")
        with pytest.raises(ResponseError), redis_away_is_store_away():
            await redis.hset("BUSY text", "field", "value")
        pipeline = redis.pipeline(transaction=False)
        pipeline.hset("BUSY text", "field", "value")
        with pytest.raises(ResponseError), redis_away_is_store_away():
            await pipeline.execute()
