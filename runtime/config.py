"""Reads the settings: defaults, a file, systemd credentials, the environment, `--set`; the last one wins.

Each value is checked where it comes from, so that an error names its own source. What settings there are is
declared in `runtime.settings` alone.
"""

import datetime
import difflib
import itertools
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from runtime.settings import Config, is_secret

ENVIRONMENT_PREFIX = "LOBBYD_"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
SHOWN_LENGTH = 60  # characters of a wrong value that an error repeats


class ConfigError(Exception):
    """A setting that cannot be used. Its text is one line for a person; programs print it and exit 2."""


@dataclass(frozen=True)
class Setting:
    """One declared setting: `name` is `section.key`, `annotation` what msgspec converts a value to."""

    name: str
    annotation: Any
    default: Any
    description: str


@dataclass(frozen=True)
class _Given:
    """A value as some source gives it; `text` is set when it was typed as text and not as TOML."""

    source: str
    name: str
    value: Any
    text: str | None = None


def settings() -> dict[str, Setting]:
    """Every setting by its name, in the order of `runtime.settings`."""
    return {
        f"{section}.{key}": Setting(
            f"{section}.{key}", annotation, getattr(table, key), _description(annotation)
        )
        for section in Config.__struct_fields__
        for table in [getattr(Config(), section)]
        for key, annotation in get_type_hints(type(table), include_extras=True).items()
    }


def _description(annotation: Any) -> str:
    return next(part for part in annotation.__metadata__ if isinstance(part, str))


def load(path: Path | None, *, environ: Mapping[str, str], overrides: Sequence[str]) -> Config:
    """Read all settings.

    `path`: a TOML file, or None for no file. `environ`: variables `LOBBYD_SECTION__KEY` count, others do not
    (Kubernetes puts `LOBBYD_PORT` and the like there by itself), and so do files of such names in its
    CREDENTIALS_DIRECTORY, which systemd makes of `LoadCredential=` (systemd.exec(5)). `overrides`: texts
    `section.key=value`, as `--set` takes them. Values of all but the file are TOML (`5`, `"text"`), and plain
    text where they are not.

    Raises ConfigError for a file that cannot be read, an unknown key, a wrong type or range.
    """
    known = settings()
    sections: dict[str, dict[str, Any]] = {section: {} for section in Config.__struct_fields__}
    sources = (_from_file(path), _from_credentials(environ), _from_environment(environ))
    for given in itertools.chain(*sources, _from_overrides(overrides)):
        if given.name not in known:
            raise ConfigError(f"{given.source}: {_printable(given.name)}: {_unknown(given.name, known)}")
        section, key = given.name.split(".")
        sections[section][key] = _converted(given, known[given.name])
    return msgspec.convert(sections, Config)


def _from_file(path: Path | None) -> Iterator[_Given]:
    if path is None:
        return
    for section, table in _parsed(path).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {_printable(section)}: expected a [section], got {_shown(table)}")
        if section not in Config.__struct_fields__:
            raise ConfigError(
                f"{path}: [{_printable(section)}]: {_unknown(section, Config.__struct_fields__)}"
            )
        for key, value in table.items():
            yield _Given(str(path), f"{section}.{key}", value)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8, numbers of 5,000 digits
        raise ConfigError(f"{path}: not valid TOML: {_printable(str(error))}") from None


def _from_credentials(environ: Mapping[str, str]) -> Iterator[_Given]:
    """A credential is text as it stands in its file, but for the line's end."""
    directory = environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        return
    for variable, name in _named_settings(sorted(os.listdir(directory)) if os.path.isdir(directory) else ()):
        path = Path(directory, variable)
        try:
            text = path.read_text("utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"systemd credential {path}: cannot be read: {error}") from None
        yield _Given(f"systemd credential {variable}", name, _from_text(text), text)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for variable, name in _named_settings(environ):
        text = environ[variable]
        yield _Given(variable, name, _from_text(text), text)


def _named_settings(variables: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of the variables that are named like settings, each with the setting's name."""
    for variable in variables:
        section, separator, key = variable.removeprefix(ENVIRONMENT_PREFIX).partition("__")
        if variable.startswith(ENVIRONMENT_PREFIX) and separator:
            yield variable, f"{section}.{key}".lower()


def _from_overrides(overrides: Sequence[str]) -> Iterator[_Given]:
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected section.key=value, got {_shown(override)}")
        yield _Given("--set", name.strip(), _from_text(text.strip()), text.strip())


def _from_text(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _converted(given: _Given, setting: Setting) -> Any:
    kind = msgspec.inspect.type_info(setting.annotation)
    value = given.value
    if isinstance(value, datetime.datetime):
        value = value.isoformat()  # TOML has times of its own: one that is written without quotes is as good
    if given.text is not None and _is_text(kind) and not isinstance(value, str):
        value = given.text  # a secret or a name made of digits alone is text all the same
    try:
        return msgspec.convert(value, setting.annotation)
    except (msgspec.ValidationError, OverflowError):
        shown = "something else" if is_secret(setting.annotation) else _shown(value)
        raise ConfigError(f"{given.source}: {given.name}: expected {_expected(kind)}, got {shown}") from None


def _is_text(kind: msgspec.inspect.Type) -> bool:
    plain = kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
    return isinstance(plain, (msgspec.inspect.StrType, msgspec.inspect.LiteralType))


def _expected(kind: msgspec.inspect.Type) -> str:
    match kind:
        case msgspec.inspect.Metadata(extra={"expected": str(text)}):
            return text
        case msgspec.inspect.Metadata(type=plain):
            return _expected(plain)
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(_shown, values))
        case msgspec.inspect.IntType(ge=least, le=most):
            return "an integer" + _range(least, most)
        case msgspec.inspect.FloatType(gt=above, ge=least, le=most):
            return "a number" + (
                _range(least, most) if above is None else f" above {above} and at most {most}"
            )
        case _:
            return "text"


def _range(least: float | None, most: float | None) -> str:
    return f" of at least {least}" if most is None else f" from {least} to {most}"


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"unknown; did you mean {close[0]}?"
    section, _, _ = name.partition(".")
    siblings = [each for each in known if each.startswith(f"{section}.")]
    return "unknown; there are " + ", ".join(siblings or Config.__struct_fields__)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _printable(text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + "…")


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
