"""What processes leave behind, and whether they serve: looked at from outside."""

import socket
import uuid

from storage import keys
from tests.system.cluster import Cluster, Process
from tests.system.guest import Guest


def left_behind(cluster: Cluster, process: Process) -> list[str]:
    """What of a process is still there: its lease; a node's queue and the index of it, its open port."""
    queue = keys.node_queue(process.name)
    names = [queue, keys.queue_meta(queue), keys.queue_stats(queue), keys.server_lease(process.name)]
    found = [name for name in names if cluster.redis.exists(name)]
    if cluster.redis.sismember(keys.QUEUE_IDS, queue):
        found.append(keys.QUEUE_IDS)
    with socket.socket() as probe:
        if process.port is not None and probe.connect_ex(process.endpoint) == 0:
            found.append(f"port {process.port}")
    return found


async def somebody_signs_in(node: Process) -> None:
    """See that the node, its queue and a login worker serve a player from beginning to end."""
    name = f"somebody-{uuid.uuid4().hex[:8]}"
    guest = await Guest.at(node.endpoint)
    assert (await guest.sign_up(name)).user_id == name
    guest.leave()
