"""The asyncio client library that games, tests and load generators use.

A player's whole stay, over whichever of several nodes is there:

    async with Player([("127.0.0.1", 7400), ("127.0.0.1", 7401)]) as player:
        await player.register("hong", "a long password", "hong@example.com", "홍길동")
        await player.sign_in("hong", "a long password", on_update=lambda place: print(place.position))
        async for event in player.events():
            match event:
                case KickedOut(message=text):
                    print(text)

One bare connection, where reconnecting would be in the way:

    connection = await Connection.open("127.0.0.1", 7400)
    pong = await connection.request(Ping())
    connection.close()

Requests, replies and events are the Structs of `protocol.messages`.
"""

from client.connection import Connection
from client.errors import ClientError, ConnectionLost, RequestFailed, TakenOver, TicketLost
from client.events import EventStream
from client.link import Endpoint
from client.player import Player

__all__ = [
    "ClientError",
    "Connection",
    "ConnectionLost",
    "Endpoint",
    "EventStream",
    "Player",
    "RequestFailed",
    "TakenOver",
    "TicketLost",
]
