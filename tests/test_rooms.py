"""The import contracts of pyproject.toml know every room there is."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages(folder: Path) -> set[str]:
    return {found.parent.name for found in folder.glob("*/__init__.py")}


def test_every_package_is_checked_and_installed() -> None:
    tool = configuration()["tool"]
    rooms = packages(ROOT) - {"tests"}
    assert set(tool["importlinter"]["root_packages"]) == rooms
    assert set(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == rooms
    assert set(tool["mypy"]["files"]) == rooms | {"tests"}


def test_every_worker_package_is_kept_apart_from_the_others() -> None:
    contracts = configuration()["tool"]["importlinter"]["contracts"]
    (apart,) = (contract for contract in contracts if contract.get("containers") == ["workers"])
    (layer,) = apart["layers"]
    named = {name.strip(" ()") for name in layer.split("|")}
    assert packages(ROOT / "workers") <= named
