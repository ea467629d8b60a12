"""The pairing beside a plain search through everything, which is slow and easily seen to be right."""

from itertools import combinations

import pytest
from hypothesis import given, settings, strategies as st

from workers.matching.pairing import Match, Player, Pool, Reach, Widening, cost_between, quality

NOW_MS = 100_000
WIDENING = Widening(
    [Reach(0, 0), Reach(2_000, 1), Reach(5_000, 4), Reach(8_000, 9, True), Reach(20_000, 99, True)]
)
URGENT_MS = 20_000


def may_meet(players: tuple[Player, ...]) -> bool:
    """The rule itself: what the oldest's waiting time allows."""
    oldest = min(players, key=lambda each: each.age)
    reach = WIDENING.at(NOW_MS - oldest.since_ms)
    if any(abs(each.level - oldest.level) > reach.levels for each in players):
        return False
    return reach.other_regions or len({each.region for each in players if each.region}) <= 1


def pool_of(players: list[Player], size: int) -> Pool:
    pool = Pool(WIDENING, size)
    for player in players:
        pool.add(player)
    return pool


def possible(players: list[Player], size: int) -> list[tuple[Player, ...]]:
    return [some for some in combinations(players, size) if may_meet(some)]


@st.composite
def crowds(draw: st.DrawFn) -> list[Player]:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, 12) | st.integers(1, 100),
                st.sampled_from(["", "asia", "europe"]),
                st.sampled_from([0, 1_999, 2_000, 5_000, 8_000, 8_001, 20_000, 30_000]),
            ),
            max_size=9,
        )
    )
    return [
        Player(f"player-{number}", number, level, region, NOW_MS - waited_ms)
        for number, (level, region, waited_ms) in enumerate(rows)
    ]


@given(crowds(), st.integers(2, 4))
def test_a_sweep_makes_only_matches_that_may_be_and_leaves_none(crowd: list[Player], size: int) -> None:
    pool = pool_of(crowd, size)
    matches = pool.sweep(NOW_MS)
    met = [player for match in matches for player in match.players]
    assert len(met) == len(set(met))
    for match in matches:
        assert len(match.players) == size
        assert may_meet(match.players)
        assert list(match.players) == sorted(match.players, key=lambda each: each.age)
    left = [player for player in crowd if player not in met]
    assert sorted(pool, key=lambda each: each.entry) == left
    assert not possible(left, size)


@given(crowds(), st.integers(2, 4))
def test_the_oldest_who_can_meet_anybody_does(crowd: list[Player], size: int) -> None:
    first = min((min(each.age for each in some) for some in possible(crowd, size)), default=None)
    met = [match.players[0].age for match in pool_of(crowd, size).sweep(NOW_MS)]
    assert (min(met) if met else None) == first


@given(crowds(), st.integers(2, 4), st.data())
def test_a_newcomer_meets_whenever_somebody_can_be_met(
    crowd: list[Player], size: int, data: st.DataObject
) -> None:
    pool = pool_of(crowd, size)
    pool.sweep(NOW_MS)
    settled = list(pool)
    newcomer = Player(
        "newcomer",
        99,
        data.draw(st.integers(1, 12)),
        data.draw(st.sampled_from(["", "asia"])),
        NOW_MS - data.draw(st.sampled_from([0, 6_000, 25_000])),
    )
    pool.add(newcomer)
    match = pool.meet(newcomer.entry, NOW_MS)
    assert (match is not None) == bool(possible([*settled, newcomer], size))
    if match is not None:
        assert newcomer in match.players
        assert len(set(match.players)) == size
        assert may_meet(match.players)


@given(crowds(), st.integers(1, 12), st.sampled_from(["", "asia"]))
def test_a_newcomer_meets_the_nearest_unless_somebody_is_urgent(
    crowd: list[Player], level: int, region: str
) -> None:
    pool = pool_of(crowd, 2)
    pool.sweep(NOW_MS)
    newcomer = Player("newcomer", 99, level, region, NOW_MS)
    others = [each for each in pool if may_meet((each, newcomer))]
    pool.add(newcomer)
    match = pool.meet(newcomer.entry, NOW_MS)
    if not others:
        assert match is None
        return
    assert match is not None
    urgent = [each for each in others if NOW_MS - each.since_ms >= URGENT_MS]
    if urgent:
        assert match.players[0] == min(urgent, key=lambda each: each.age)
    else:
        nearest = min(others, key=lambda each: (cost_between(each, newcomer), each.age))
        assert match.players == (nearest, newcomer)


@settings(max_examples=50)
@given(crowds())
def test_whoever_leaves_and_comes_back_finds_the_pool_as_it_was(crowd: list[Player]) -> None:
    pool = pool_of(crowd, 2)
    for player in crowd[::2]:
        pool.remove(player.entry)
        pool.remove(player.entry)
    for player in reversed(crowd[::2]):
        pool.add(player)
        pool.add(player)
    assert pool.sweep(NOW_MS) == pool_of(crowd, 2).sweep(NOW_MS)


def test_skill_decides_among_the_oldest_of_one_level() -> None:
    pool = Pool(WIDENING, 2, by_skill=True)
    for number in range(4):
        pool.add(Player(f"player-{number}", number, 5, "asia", NOW_MS - 10 + number, skill=10.0 * number))
    pool.add(Player("newcomer", 9, 5, "asia", NOW_MS, skill=19.0))
    match = pool.meet(9, NOW_MS)
    assert match is not None
    assert [each.user_id for each in match.players] == ["player-2", "newcomer"]
    assert match.cost == pytest.approx(1.0)


def test_a_match_says_its_level_region_and_quality() -> None:
    old = Player("old", 1, 7, "", NOW_MS - 9_000)
    new = Player("new", 2, 9, "asia", NOW_MS)
    pool = pool_of([old, new], 2)
    (match,) = pool.sweep(NOW_MS)
    assert match == Match((old, new), 2.0)
    assert (match.level, match.region) == (7, "asia")
    assert quality(0) == 1.0
    assert quality(10) == 0.5
    assert pool.in_reach(old, NOW_MS) == 0


def test_in_reach_counts_whom_the_search_finds() -> None:
    crowd = [Player(f"{n}", n, 5, region, NOW_MS) for n, region in enumerate(["asia", "asia", "", "europe"])]
    pool = pool_of(crowd, 8)
    assert [pool.in_reach(each, NOW_MS) for each in crowd] == [3, 3, 3, 2]
    assert pool.in_reach(crowd[0], NOW_MS + 8_000) == 4
    assert pool.in_reach(Player("far", 9, 50, "asia", NOW_MS), NOW_MS) == 0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Reach(1, 0)],
        [Reach(0, 0), Reach(0, 1)],
        [Reach(0, 5), Reach(10, 4)],
        [Reach(0, 0, True), Reach(10, 4, False)],
    ],
)
def test_a_table_that_does_not_widen_is_refused(rows: list[Reach]) -> None:
    with pytest.raises(ValueError, match=r"row|narrower"):
        Widening(rows)
