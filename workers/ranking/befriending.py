"""Friends: `friend.add`, `friend.remove`, `friend.list`."""

from protocol.errors import FRIENDS_FULL, INVALID_REQUEST, USER_NOT_FOUND, RequestError
from protocol.messages.ranking import AddFriend, Friend, Friends, ListFriends, RemoveFriend
from storage.friends import NoSuchFriend, TooManyFriends
from storage.users import fold
from workers.ranking.room import RankingRoom, handlers
from workers.requests import Call, sender


@handlers.handles(AddFriend)
async def add(room: RankingRoom, call: Call[AddFriend]) -> Friends:
    """Make the asker and another user friends. To repeat it changes nothing, so no record is kept."""
    user_id, friend_id = sender(call), fold(call.data.friend_id)
    if friend_id == user_id:
        raise RequestError(INVALID_REQUEST, "`friendId`: nobody is a friend of their own")
    try:
        await room.friends.add(user_id, friend_id)
    except NoSuchFriend:
        raise RequestError(USER_NOT_FOUND) from None
    except TooManyFriends:
        raise RequestError(FRIENDS_FULL) from None
    return await _friends(room, user_id)


@handlers.handles(RemoveFriend)
async def remove(room: RankingRoom, call: Call[RemoveFriend]) -> Friends:
    """End a friendship on both sides."""
    user_id = sender(call)
    try:
        await room.friends.remove(user_id, fold(call.data.friend_id))
    except NoSuchFriend:
        raise RequestError(USER_NOT_FOUND) from None
    return await _friends(room, user_id)


@handlers.handles(ListFriends)
async def list_friends(room: RankingRoom, call: Call[ListFriends]) -> Friends:
    """Who the asker's friends are."""
    return await _friends(room, sender(call))


async def _friends(room: RankingRoom, user_id: str) -> Friends:
    found = await room.friends.of(user_id)
    return Friends(friends=[Friend(user_id=friend_id, nickname=nickname) for friend_id, nickname in found])
