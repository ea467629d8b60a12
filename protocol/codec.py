"""msgpack in and out.

What comes from outside is decoded by `decode_untrusted`, one measured frame at a time and within
limits. What lobbyd's own processes say to each other is decoded by msgspec, straight into types.
"""

from typing import Any

import msgpack
import msgspec

from protocol.errors import ProtocolError

MAX_DEPTH = 16
"""Nesting that is taken from outside (wire.md, "Frames")."""

MAX_LENGTH = 1024
"""Entries of one map or array that are taken from outside (wire.md, "Frames")."""

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ProtocolError(f"msgpack extension type {code} is not part of the protocol.")


def _check(value: Any, depth: int) -> None:
    """Refuse what msgpack allows and the protocol does not: depth, keys that are not text, timestamps."""
    if depth > MAX_DEPTH:
        raise ProtocolError(f"Nesting deeper than {MAX_DEPTH}.")
    if type(value) is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise ProtocolError("A map key that is not text.")
            if type(inner) in _NESTED:
                _check(inner, depth + 1)
    elif type(value) is list:
        for inner in value:
            if type(inner) in _NESTED:
                _check(inner, depth + 1)
    else:
        raise ProtocolError("A msgpack timestamp is not part of the protocol: times are integers.")


_NESTED = frozenset({dict, list, msgpack.Timestamp})


def decode_untrusted(body: bytes) -> dict[str, Any]:
    """Decode one frame's body from outside into a map.

    Raises ProtocolError for anything that is not one msgpack map within the protocol's limits.
    """
    try:
        value = msgpack.unpackb(
            body,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_array_len=min(MAX_LENGTH, len(body)),
            max_map_len=min(MAX_LENGTH, len(body)),
            ext_hook=_refuse_extension,
        )
    except ProtocolError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"A frame that is no msgpack within the limits ({type(error).__name__}).") from error
    if type(value) is not dict:
        raise ProtocolError("A frame whose body is no msgpack map.")
    _check(value, 1)
    return value
