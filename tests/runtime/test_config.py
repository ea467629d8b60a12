"""Settings: the three places that name them agree, precedence holds, and errors name source and key."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from runtime.config import ConfigError, load, settings
from runtime.settings import Config

CONFIG_TOML = Path(__file__).parents[2] / "config.toml"


def read(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, environ=environ or {}, overrides=overrides)


def error_of(
    path: Path | None, environ: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {}, overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_config_toml_holds_every_setting_with_its_default_in_order() -> None:
    tables = tomllib.loads(CONFIG_TOML.read_text())
    in_file = {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}
    assert list(in_file) == list(settings())
    assert in_file == {name: setting.default for name, setting in settings().items()}


def test_config_toml_explains_every_setting_in_the_words_of_its_declaration() -> None:
    comments = re.findall(r"^\w+ = .*?  # (.+)$", CONFIG_TOML.read_text(), re.MULTILINE)
    assert comments == [setting.description for setting in settings().values()]


def test_config_toml_explains_every_section_in_the_words_of_its_declaration() -> None:
    headings = re.findall(r"^# (.+)\n\[(\w+)\]$", CONFIG_TOML.read_text(), re.MULTILINE)
    assert headings == [(type(getattr(Config(), name)).__doc__, name) for name in Config.__struct_fields__]


def test_config_toml_loads_to_the_defaults() -> None:
    assert load(CONFIG_TOML, environ={}, overrides=[]) == Config()


def test_without_any_source_there_are_the_defaults() -> None:
    assert load(None, environ={}, overrides=[]) == Config()


def test_the_environment_overrides_the_file_and_set_overrides_both(tmp_path: Path) -> None:
    text = "[login]\nadmit_rate = 1\npod_count = 1\nmax_queue_length = 1\n"
    environ = {"LOBBYD_LOGIN__POD_COUNT": "2", "LOBBYD_LOGIN__MAX_QUEUE_LENGTH": "2"}
    login = read(tmp_path, text, environ, ["login.max_queue_length=3"]).login
    assert (login.admit_rate, login.pod_count, login.max_queue_length) == (1, 2, 3)


def test_the_last_set_of_a_key_wins() -> None:
    config = load(None, environ={}, overrides=["login.admit_rate=1", "login.admit_rate=2"])
    assert config.login.admit_rate == 2


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("socketd.keepalive_s=5", "socketd", "keepalive_s", 5.0),
        ("socketd.keepalive_s=0.5", "socketd", "keepalive_s", 0.5),
        ("socketd.max_connections=10_000", "socketd", "max_connections", 10_000),
        ('socketd.server_id="SOCK007"', "socketd", "server_id", "SOCK007"),
        ("socketd.server_id=SOCK007", "socketd", "server_id", "SOCK007"),
        ("socketd.server_id=7", "socketd", "server_id", "7"),
        ("socketd.server_id=1e5", "socketd", "server_id", "1e5"),
        ("redis.url=", "redis", "url", ""),
        ("redis.url=redis://h:1/0?a=b", "redis", "url", "redis://h:1/0?a=b"),
        ("auth.secret=#not a comment = 5#", "auth", "secret", "#not a comment = 5#"),
        ("log.level=debug", "log", "level", "debug"),
        (" log.level = debug ", "log", "level", "debug"),
    ],
)
def test_a_set_value_is_toml_or_else_text(override: str, section: str, key: str, value: object) -> None:
    config = load(None, environ={}, overrides=[override])
    assert getattr(getattr(config, section), key) == value


def test_a_value_with_a_line_break_is_text_and_not_more_toml() -> None:
    config = load(None, environ={"LOBBYD_AUTH__SECRET": "1\nother = 2"}, overrides=[])
    assert config.auth.secret == "1\nother = 2"


def test_variables_without_a_double_underscore_are_none_of_ours() -> None:
    environ = {
        "LOBBYD_PORT": "tcp://10.0.0.1:7400",
        "LOBBYD_SERVICE_HOST": "10.0.0.1",
        "LOGIN__ADMIT_RATE": "1",
    }
    assert load(None, environ=environ, overrides=[]) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[login]\nadmit_rate = "fast"', 'login.admit_rate: expected an integer of at least 1, got "fast"'),
        ("[login]\nadmit_rate = 0", "login.admit_rate: expected an integer of at least 1, got 0"),
        ("[login]\nadmit_rate = 1.5", "login.admit_rate: expected an integer of at least 1, got 1.5"),
        ("[login]\nadmit_rate = true", "login.admit_rate: expected an integer of at least 1, got true"),
        ("[login]\nadmit_rate = [1]", "login.admit_rate: expected an integer of at least 1, got [1]"),
        (
            "[login]\nadmit_rate = 2024-01-01",
            'login.admit_rate: expected an integer of at least 1, got "2024-01-01"',
        ),
        ("[auth]\nbcrypt_cost = 17", "auth.bcrypt_cost: expected an integer from 4 to 16, got 17"),
        ("[log]\nlevel = 1", 'log.level: expected one of "debug", "error", "info", "warning", got 1'),
        (
            "[socketd]\nserver_id = 'a:b'",
            'socketd.server_id: expected 1 to 64 letters, digits, - or _, got "a:b"',
        ),
        (
            '[socketd]\nserver_id = "A\\n"',
            'socketd.server_id: expected 1 to 64 letters, digits, - or _, got "A\\n"',
        ),
        ("[login]\nadmit_rat = 1", "login.admit_rat: unknown; did you mean login.admit_rate?"),
        ("[logn]\nadmit_rate = 1", "[logn]: unknown; did you mean login?"),
        ("[login.admit_rate]\nx = 1", 'login.admit_rate: expected an integer of at least 1, got {"x": 1}'),
        ("[logn]", "[logn]: unknown; did you mean login?"),
        ("login = 1", "login: expected a [section], got 1"),
        (
            "[login]\nopens_at = 2024-12-18",
            'login.opens_at: expected a time with its zone, such as 2024-12-18T18:00:00+09:00, or "", '
            'got "2024-12-18"',
        ),
        ('[login]\n"admit.rate\\n" = 1', "login.admit.rate\\x0a: unknown; did you mean login.admit_rate?"),
    ],
)
def test_an_error_names_file_key_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    assert error_of(path) == f"{path}: {message}"


def test_a_time_needs_no_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, "[login]\nopens_at = 2024-12-18 18:00:00+09:00")
    assert load(path, environ={}, overrides=[]).login.opens_at == "2024-12-18T18:00:00+09:00"


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "1e30", '"x"', "true"])
def test_a_duration_is_a_finite_number_above_zero(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, f"[socketd]\nkeepalive_s = {value}")
    assert error_of(path).startswith(
        f"{path}: socketd.keepalive_s: expected a number above 0 and at most 31536000, got"
    )


def test_an_integer_too_great_for_a_duration_is_an_error_like_any_other() -> None:
    assert "socketd.keepalive_s: expected" in error_of(None, overrides=["socketd.keepalive_s=1" + "0" * 400])
    assert "socketd.keepalive_s: expected" in error_of(None, overrides=["socketd.keepalive_s=1" + "0" * 5000])


@pytest.mark.parametrize(
    "name", [name for name, setting in settings().items() if type(setting.default) is float]
)
def test_every_number_is_finite_and_its_range_is_told(name: str) -> None:
    said = error_of(None, overrides=[f"{name}=inf"])
    assert f"{name}: expected a number " in said
    assert "None" not in said


@pytest.mark.parametrize("url", ["hooks.example.com/secret", "file:///etc/passwd", "https://", "https://a b"])
def test_a_webhook_is_a_url_of_http_and_is_not_shown(url: str) -> None:
    said = error_of(None, overrides=[f"monitoring.webhook={url}"])
    assert said == (
        "--set: monitoring.webhook: expected a URL such as https://hooks.example.com/alerts, "
        'or "", got something else'
    )


def test_an_unknown_key_that_resembles_none_is_answered_with_those_there_are() -> None:
    assert error_of(None, overrides=["status.zzz=1"]) == (
        "--set: status.zzz: unknown; there are status.heartbeat_s, status.missed_heartbeats"
    )
    assert error_of(None, overrides=["zzz.q=1"]).startswith(
        "--set: zzz.q: unknown; there are redis, database, "
    )


def test_an_error_names_the_variable() -> None:
    assert error_of(None, {"LOBBYD_LOGIN__POD_COUNT": ""}) == (
        'LOBBYD_LOGIN__POD_COUNT: login.pod_count: expected an integer of at least 1, got ""'
    )
    assert error_of(None, {"LOBBYD_LOGIN__POD_CONT": "1"}) == (
        "LOBBYD_LOGIN__POD_CONT: login.pod_cont: unknown; did you mean login.pod_count?"
    )


def test_a_set_without_a_value_is_an_error() -> None:
    assert (
        error_of(None, overrides=["login.admit_rate"])
        == '--set: expected section.key=value, got "login.admit_rate"'
    )


def test_an_error_never_shows_a_secret() -> None:
    message = error_of(None, {"LOBBYD_REDIS__URL": "http://user:hunter2@host"})
    assert "hunter2" not in message
    assert message.startswith("LOBBYD_REDIS__URL: redis.url: expected a URL such as")


def test_a_repr_never_shows_a_secret() -> None:
    config = load(None, environ={}, overrides=["auth.secret=hunter2", "redis.url=redis://:hunter2@h"])
    assert "hunter2" not in f"{config!r} {config} {config.auth} {config.redis}"
    assert "secret='***'" in repr(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[login", "not valid TOML: "),
        (b"\xff\xfe", "not valid TOML: "),
        (b"a = 1\na = 2", "not valid TOML: "),
    ],
)
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    assert error_of(path).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert error_of(path) == f"{path}: cannot be read: No such file or directory"
    assert error_of(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_config_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(AttributeError):
        config.login.admit_rate = 5  # type: ignore[misc]
    assert msgspec.structs.replace(config.login, admit_rate=5).admit_rate == 5


def test_systemd_credentials_come_between_the_file_and_the_environment(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "LOBBYD_REDIS__URL").write_text("redis://:p4ss@h:1/0\n")
    (folder / "LOBBYD_LOGIN__ADMIT_RATE").write_text("7\n")
    (folder / "LOBBYD_LOGIN__POD_COUNT").write_text("8")
    (folder / "lobbyd_secret").write_text("not a setting")
    environ = {"CREDENTIALS_DIRECTORY": str(folder), "LOBBYD_LOGIN__POD_COUNT": "9"}
    config = read(tmp_path, "[login]\nadmit_rate = 1\npod_count = 1\n", environ)
    assert config.redis.url == "redis://:p4ss@h:1/0"
    assert (config.login.admit_rate, config.login.pod_count) == (7, 9)


def test_a_credential_that_cannot_be_used_names_itself_and_shows_nothing(tmp_path: Path) -> None:
    (tmp_path / "LOBBYD_REDIS__URL").write_text("hunter2")
    with pytest.raises(
        ConfigError, match=r"^systemd credential LOBBYD_REDIS__URL: redis\.url: .*URL"
    ) as caught:
        load(None, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, overrides=[])
    assert "hunter2" not in str(caught.value)
    (tmp_path / "LOBBYD_REDIS__URL").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"LOBBYD_REDIS__URL: cannot be read"):
        load(None, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, overrides=[])


def test_a_credentials_directory_that_is_not_there_is_no_source(tmp_path: Path) -> None:
    assert load(None, environ={"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}, overrides=[]) == Config()
