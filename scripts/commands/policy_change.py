"""`lobbyctl policy put | remove`: change who may do what, and say what came of it."""

import json
import sys
from pathlib import Path

from runtime.config import ConfigError
from runtime.daemon import EXIT_ERROR
from scripts.commands.operators import operator
from scripts.commands.system import Stores, with_stores
from storage.audit import ALLOWED, Audit, Entry
from storage.policies import Policies, Policy, PolicyFault, PolicyNotFound, parse

LONGEST_FILE_BYTES = 1_000_000
"""Far more than the largest policy needs."""


async def put(data_dir: Path, config_file: Path | None, file: Path, *, as_json: bool) -> int:
    """Have the policy of this file. Answers the exit code. Raises ConfigError for one that cannot be used."""
    policy = _read(file)

    async def work(stores: Stores) -> None:
        try:
            await Policies(stores.database, stores.redis).put(policy)
        except PolicyFault as fault:
            raise ConfigError(f"{file}: {fault}") from None
        await _write_down(stores, "policy:put", policy.policy_id)
        said = f"{policy.policy_id}: {len(policy.rules)} rules count from now on."
        print(json.dumps({"policyId": policy.policy_id}) if as_json else said)

    return await with_stores(data_dir, config_file, work)


async def remove(data_dir: Path, config_file: Path | None, policy_id: str, *, as_json: bool) -> int:
    """Have no policy of this id. Answers the exit code."""

    async def work(stores: Stores) -> int | None:
        try:
            await Policies(stores.database, stores.redis).remove(policy_id)
        except PolicyNotFound:
            print(f"There is no policy `{policy_id}`: `lobbyctl policy list`.", file=sys.stderr)
            return EXIT_ERROR
        await _write_down(stores, "policy:remove", policy_id)
        print(json.dumps({"policyId": policy_id}) if as_json else f"{policy_id} counts no more.")
        return None

    return await with_stores(data_dir, config_file, work)


def _read(file: Path) -> Policy:
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as opened:
            text = opened.read(LONGEST_FILE_BYTES + 1)
        if len(text) > LONGEST_FILE_BYTES:
            raise ConfigError(f"{file}: it is longer than {LONGEST_FILE_BYTES:,} bytes")
        return parse(text.decode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8") from None
    except PolicyFault as fault:
        raise ConfigError(f"{file}: {fault}") from None


async def _write_down(stores: Stores, action: str, policy_id: str) -> None:
    await Audit(stores.redis).append([Entry(operator(), action, f"policy:{policy_id}", ALLOWED, "lobbyctl")])
