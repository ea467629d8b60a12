"""Looking up together what is asked for in one turn of the loop."""

import asyncio
from collections.abc import Mapping, Set

from storage.errors import StoreAway
from storage.gathering import Gathering


class Store:
    """Knows the lengths of names, once `open` is set."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def look_up(self, names: Set[str]) -> Mapping[str, int]:
        self.asked.append(list(names))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return {name: len(name) for name in names if name}


async def test_what_is_asked_for_in_one_turn_is_looked_up_together_and_each_once() -> None:
    store = Store()
    gathering = Gathering(store.look_up)
    store.open.set()
    names = ["ada", "eve", "ada", "", "hana"]
    assert await asyncio.gather(*map(gathering.get, names)) == [3, 3, 3, None, 4]
    assert await gathering.get("ada") == 3
    assert store.asked == [["ada", "eve", "", "hana"], ["ada"]]


async def test_who_is_cancelled_takes_nothing_from_those_who_wait_for_the_same() -> None:
    store = Store()
    gathering = Gathering(store.look_up)
    asking = [asyncio.create_task(gathering.get("ada")) for _ in range(3)]
    while not store.asked:
        await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    store.open.set()
    assert await asyncio.gather(*asking[1:]) == [3, 3]
    assert asking[0].cancelled()


async def test_what_goes_wrong_goes_wrong_for_all_of_a_batch_and_no_other() -> None:
    store = Store()
    gathering = Gathering(store.look_up)
    store.open.set()
    store.error = StoreAway("away")
    outcomes = await asyncio.gather(*map(gathering.get, ["ada", "ada", "eve"]), return_exceptions=True)
    assert outcomes == [store.error] * 3
    store.error = None
    assert await gathering.get("ada") == 3
