"""msgpack in and out.

What comes from outside is decoded by `decode_untrusted`, one measured frame at a time and within
limits. What lobbyd's own processes say to each other is decoded by msgspec, straight into types.
"""

from typing import Any

import msgspec

from protocol.errors import ProtocolError
from protocol.shape import check_shape

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode

_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def decode_untrusted(body: bytes) -> dict[str, Any]:
    """Decode one frame's body from outside into a map. Of keys that come twice the last one counts.

    Raises ProtocolError for anything that is not one msgpack map within the protocol's limits.
    """
    check_shape(body)
    try:
        return _decoder.decode(body)
    except ValueError as error:  # Only text that is not UTF-8 is left; msgspec's own errors are ValueErrors.
        raise ProtocolError(f"A frame that is no msgpack ({error}).") from error
