"""What `lobbyctl` decides without any process: settings, last words, the crowd and its picture."""

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from runtime.config import ConfigError, load
from scripts.commands.child import Child, Life, Observer, Program
from scripts.commands.crowd import NAMES, Act, Crowd, State, Tier
from scripts.commands.data_dir import DataDir
from scripts.commands.last_words import END_BYTES, MOST_LINES, last_words
from scripts.commands.picture import WIDTH, line, picture, summary
from scripts.commands.programs import environment
from scripts.commands.system import NothingRuns, redis_url
from tests.commands.running import lobbyctl


def drawn(crowd: Crowd) -> list[str]:
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(picture(crowd))
    return captured.get().splitlines()


class TestEnvironment:
    def test_settings_take_the_place_of_the_given_ones_however_they_are_spelled(self) -> None:
        given = {"PATH": "/bin", "LOBBYD_login__Admit_Rate": "1", "LOBBYD_LOG__LEVEL": "debug"}
        made = environment(given, {"login.admit_rate": "2"})
        assert made == {"PATH": "/bin", "LOBBYD_LOG__LEVEL": "debug", "LOBBYD_LOGIN__ADMIT_RATE": "2"}

    @pytest.mark.parametrize("text", ["60", "0.5", '"a b"', "it's", "0123456789" * 4, "tést"])
    def test_a_text_of_set_means_the_same_in_the_environment(self, text: str) -> None:
        name = "auth.secret" if text not in {"60", "0.5"} else "socketd.keepalive_s"
        by_set = load(None, environ={}, overrides=[f"{name}={text}"])
        assert load(None, environ=environment({}, {name: text}), overrides=[]) == by_set


class TestLastWords:
    def write(self, folder: Path, *lines: str) -> Path:
        log = folder / "log"
        log.write_text("".join(f"{line}\n" for line in lines))
        return log

    def test_log_lines_are_told_in_words_when_they_matter(self, tmp_path: Path) -> None:
        log = self.write(
            tmp_path,
            json.dumps({"level": "info", "event": "starting"}),
            json.dumps({"level": "error", "event": "ends in error", "cause": "port: in use"}),
            json.dumps({"level": "error", "event": "failed", "exception": "Traceback\n  x\nKeyError: 'a'"}),
            json.dumps({"level": "warning", "event": "odd"}),
            "config.toml: login.admit_rate: expected an integer",
        )
        assert last_words(log, 0) == [
            "error: ends in error: port: in use",
            "error: failed: KeyError: 'a'",
            "warning: odd",
            "config.toml: login.admit_rate: expected an integer",
        ]

    def test_what_an_earlier_life_wrote_is_left_out(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "before", "after")
        assert last_words(log, len("before\n")) == ["after"]

    def test_few_lines_of_much_are_told_and_each_but_once(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, *(f"line {number // 2}" for number in range(END_BYTES)))
        told = last_words(log, 0)
        assert len(told) == len(set(told)) == MOST_LINES
        assert told[-1] == f"line {(END_BYTES - 1) // 2}"

    def test_of_a_line_that_is_too_long_people_see_its_beginning_or_nothing(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "x" * END_BYTES, "y" * 1000)
        assert last_words(log, 0) == ["y" * 300 + "…"]

    def test_a_log_that_is_gone_says_nothing(self, tmp_path: Path) -> None:
        assert last_words(tmp_path / "none", 0) == []


class TestDataDir:
    def test_a_password_is_made_once(self, tmp_path: Path) -> None:
        data_dir = DataDir(tmp_path)
        made = data_dir.password("redis.password")
        assert len(made) >= 32
        assert DataDir(tmp_path).password("redis.password") == made
        assert data_dir.password("demo.password") != made

    def test_a_place_where_nothing_can_be_made_is_a_wrong_setting(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=r"file/data: cannot be made: Not a directory"):
            DataDir(tmp_path / "file" / "data").make()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
    async def test_a_disk_that_is_full_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "lock").symlink_to("/dev/full")
        with pytest.raises(ConfigError, match="cannot be written"):
            async with DataDir(tmp_path).locked(print):
                pass


class TestChild:
    def test_to_kill_what_has_just_ended_is_no_error(self, tmp_path: Path) -> None:
        async def never(_: Life) -> bool:
            return False

        program = Program("gone", [], tmp_path / "log", never, end_s=1.0)
        child = Child(program, cast(Observer, None), lock=0)
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            process.wait()
        child.life = Life(process.pid, 0)
        child.kill()


class TestFinding:
    def test_the_file_comes_first(self, tmp_path: Path) -> None:
        settings = tmp_path / "config.toml"
        settings.write_text('[redis]\nurl = "redis://somewhere"\n')
        assert redis_url(tmp_path, settings) == "redis://somewhere"

    def test_a_file_without_a_redis_leaves_it_to_the_data_directory(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").touch()
        found = {"sockets": {}, "redis": "redis://there", "database": "", "pids": {}}
        (tmp_path / "endpoints.json").write_text(json.dumps(found))
        assert redis_url(tmp_path, tmp_path / "config.toml") == "redis://there"

    @pytest.mark.parametrize("text", ["", "[]", '{"redis": 5}', "\x00"])
    def test_a_file_that_is_no_endpoints_is_told(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "endpoints.json").write_text(text)
        with pytest.raises(NothingRuns, match="is not what `lobbyctl up` writes"):
            redis_url(tmp_path, None)


class TestCrowd:
    def test_everybody_has_a_name_of_their_own(self) -> None:
        names = [guest.name for guest in Crowd(1000, 10).guests]
        assert len(set(names)) == 1000
        assert all(name.startswith("demo-") for name in names)
        assert names[len(NAMES)] == f"{names[0]}-2"

    def test_it_counts_where_everybody_is(self) -> None:
        crowd = Crowd(3, 10)
        first, second, third = crowd.guests
        crowd.waits_for_turn(first, 2)
        crowd.waits_for_turn(second, 1)
        assert crowd.next_in_line(5) == [second.name, first.name]
        crowd.is_admitted(second)
        crowd.is_in(second)
        crowd.is_lost(third, "no place")
        counts = {state: crowd.counts[state] for state in State if crowd.counts[state]}
        assert counts == {State.WAITING: 1, State.IN: 1, State.LOST: 1}
        assert crowd.most_waiting == 2
        assert len(crowd.waits) == 1

    def test_it_counts_who_waits_by_tier(self) -> None:
        crowd = Crowd(200, 10)
        for guest in crowd.guests:
            crowd.waits_for_turn(guest, 1)
        assert crowd.waiting == {Tier.VIP: 2, Tier.PREMIUM: 10, Tier.NORMAL: 188}
        assert "in line 2 VIP, 10 PREMIUM, 188 NORMAL;" in line(crowd)
        assert any("2 VIP · 10 PREMIUM · 188 NORMAL" in each for each in drawn(crowd))
        crowd.is_admitted(crowd.guests[99])
        assert [len(waits) for waits in crowd.waits_of.values()] == [1, 0, 0]

    def test_few_players_say_nothing_about_a_rate(self) -> None:
        crowd = Crowd(21, 10)
        assert crowd.overall_admitted_per_s is None
        crowd.admissions = [number / 1000 for number in range(21)]
        assert crowd.overall_admitted_per_s is None
        crowd.admissions = [number / 10 for number in range(21)]
        assert crowd.overall_admitted_per_s == pytest.approx(10)

    def test_who_is_lost_does_not_come_back(self) -> None:
        crowd = Crowd(2, 10)
        crowd.is_in(crowd.guests[0])
        crowd.is_lost(crowd.guests[1], "no place")
        crowd.end()
        crowd.begin(Act.RUSH)
        assert [guest.state for guest in crowd.guests] == [State.OUTSIDE, State.LOST]
        assert sum(crowd.counts.values()) == 2


class TestPicture:
    @pytest.mark.parametrize("count", [1, 20, 10_000])
    @pytest.mark.parametrize("state", State)
    def test_it_fits_a_terminal_of_80_columns_and_24_rows(self, count: int, state: State) -> None:
        crowd = Crowd(count, 1000 / 3)
        for guest in crowd.guests:
            crowd.waits_for_turn(guest, 5)
            crowd.is_in(guest)
            crowd.move(guest, state)
        crowd.is_lost(crowd.guests[0], "a long cause " * 20)
        crowd.move(crowd.guests[0], state)
        lines = drawn(crowd)
        assert {len(each) for each in lines} == {WIDTH}
        assert len(lines) <= 24
        assert any(each.startswith(f"│  {state.value}") and f" {count} " in each for each in lines)

    def test_words_for_everything_else(self) -> None:
        crowd = Crowd(2, 10)
        assert line(crowd) == (
            "players log in with passwords, 0 s: 2 on the way; 0.0 of 10.0 admitted a second; average wait –"
        )
        crowd.waits_for_turn(crowd.guests[0], 1)
        crowd.is_admitted(crowd.guests[0])
        crowd.is_in(crowd.guests[0])
        crowd.is_lost(crowd.guests[1], "no place")
        crowd.end()
        console = Console(width=80)
        with console.capture() as captured:
            console.print(summary(crowd))
        told = [each.split() for each in captured.get().splitlines()]
        assert ["players", "signed", "in", "1", "of", "2"] in told
        assert ["turned", "away", "1"] in told
        assert ["no", "place", "1"] in told
        assert ["admitted", "a", "second", "too", "few", "to", "tell"] in told
        assert line(crowd).endswith("; turned away: 1 × no place")
        assert any(each.startswith("│" + " " * 16 + "1 × no place ") for each in drawn(crowd))


def test_help_names_the_commands(tmp_path: Path) -> None:
    done = lobbyctl("--help", folder=tmp_path)
    assert done.returncode == 0
    assert "up" in done.stdout
    assert "status" in done.stdout
