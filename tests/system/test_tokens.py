"""Access and refresh tokens: resumed, exchanged, revoked, expired, forged."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from protocol.messages.auth import Login, Logout, Refresh, Resume, TokenPair
from runtime.secrets import Purpose, Secrets
from storage import keys
from storage.sessions import NextToken, Rights
from tests.system.cluster import SECRET, Cluster
from tests.system.guest import HEARING_S, Guest, Pass
from tests.system.wire import Wire
from workers.login.tokens import LEEWAY_S, Tokens

pytestmark = pytest.mark.servers


@pytest.fixture
async def guest(town: Cluster) -> AsyncIterator[Guest]:
    guest = await Guest.at(town["SOCK001"].endpoint)
    yield guest
    guest.leave()


@pytest.fixture
async def elsewhere(town: Cluster) -> AsyncIterator[Guest]:
    """A connection to the other node."""
    guest = await Guest.at(town["SOCK002"].endpoint)
    yield guest
    guest.leave()


async def refresh(guest: Guest, token: str, key: str | None = None) -> TokenPair:
    return cast(TokenPair, await guest.ask(Refresh(refresh_token=token), key))


async def is_over(guest: Guest, *tokens: TokenPair) -> None:
    """See that neither token of any pair is worth anything."""
    for pair in tokens:
        await guest.refused(Resume(access_token=pair.access_token), "INVALID_TOKEN")
        await guest.refused(Refresh(refresh_token=pair.refresh_token), "INVALID_TOKEN")
        await guest.refused(Login(refresh_token=pair.refresh_token), "INVALID_TOKEN")


async def takes_long_frames(wire: Wire) -> bool:
    """Whether the connection is signed in: only then the node takes a frame of 9,000 bytes."""
    try:
        return bool((await wire.ask("ping", {"payload": b"x" * 9_000}, 99))["status"] == 200)
    except (EOFError, ConnectionError):
        return False


class TestResume:
    async def test_the_answer(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        tokens = await guest.sign_up(name)

        resumed = await elsewhere.resume(tokens.access_token)

        assert (resumed.user_id, resumed.roles, resumed.permissions) == (name, ["NORMAL"], [])
        assert 890 <= resumed.expires_in <= 900
        assert (resumed.match, resumed.tasks, resumed.unread_notifications) == (None, [], 0)

    @pytest.mark.parametrize("token", ["x", "a.b.c", "..", "가.나.다", "e30.e30.e30", "x" * 2048])
    async def test_what_is_no_token(self, guest: Guest, token: str) -> None:
        assert (await guest.refused(Resume(access_token=token), "INVALID_TOKEN")).status == 401


def signed(claims: dict[str, Any], **kind: Any) -> str:
    """An access token with the right key."""
    key = Secrets(SECRET.encode()).sign(Purpose.ACCESS_TOKEN, b"access-token signing key")
    return jwt.encode(claims, key, **{"algorithm": "HS256", **kind})


class TestForgedTokens:
    @pytest.fixture
    async def claims(self, guest: Guest, name: str) -> dict[str, Any]:
        """What the access token of somebody who is signed in says."""
        tokens = await guest.sign_up(name)
        claims: dict[str, Any] = jwt.decode(tokens.access_token, options={"verify_signature": False})
        return claims

    async def refused(self, guest: Guest, token: str) -> None:
        await guest.refused(Resume(access_token=token), "INVALID_TOKEN")

    async def test_the_same_claims_are_taken(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        assert await elsewhere.resume(signed(claims))

    async def test_another_key(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        await self.refused(elsewhere, jwt.encode(claims, "another key of thirty-two bytes!!", "HS256"))

    async def test_no_algorithm(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        for name in ("none", "None", "NONE"):
            parts = ({"alg": name, "typ": "JWT"}, claims)
            head = ".".join(
                base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
            )
            await self.refused(elsewhere, f"{head}.")

    @pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
    async def test_another_algorithm(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        await self.refused(elsewhere, signed(claims, algorithm="HS512"))

    async def test_a_key_of_the_senders_own(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        """An asymmetric algorithm, with the key that checks it in the token or elsewhere."""
        own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = own.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        jwk = json.loads(RSAAlgorithm.to_jwk(own.public_key()))
        for headers in ({}, {"jwk": jwk}, {"jku": "https://example.com/keys"}, {"kid": "../../dev/null"}):
            await self.refused(elsewhere, jwt.encode(claims, own, "RS256", headers=headers))
            await self.refused(elsewhere, jwt.encode(claims, "own key of 32 bytes " * 2, headers=headers))
        signing = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode()
        body = f"{signing.rstrip('=')}.{jwt.encode(claims, own, 'RS256').split('.')[1]}"
        seal = base64.urlsafe_b64encode(hmac.digest(public, body.encode(), "sha256")).decode().rstrip("=")
        await self.refused(elsewhere, f"{body}.{seal}")

    @pytest.mark.parametrize(("ahead_s", "is_good"), [(5, True), (60, False)])
    async def test_a_clock_that_is_off(
        self, elsewhere: Guest, claims: dict[str, Any], ahead_s: int, is_good: bool
    ) -> None:
        """Of the machine that made the token, or of the one that reads it."""
        now_s = int(time.time())
        early = signed({**claims, "iat": now_s + ahead_s, "exp": now_s + 900})
        late = signed({**claims, "iat": now_s - 900, "exp": now_s - ahead_s})
        for token in (early, late):
            if is_good:
                assert await elsewhere.resume(token)
            else:
                await self.refused(elsewhere, token)

    async def test_another_family_of_the_same_user(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        """Tokens of one device do not outlive it by the family of another."""
        other = await elsewhere.sign_in(claims["sub"])
        await elsewhere.ask(Logout(refresh_token=other.refresh_token))

        await self.refused(elsewhere, signed({**claims, "sid": sid(other)}))
        await self.refused(elsewhere, other.access_token)

        assert await elsewhere.resume(signed(claims))

    @pytest.mark.parametrize("claim", ["exp", "iat", "sub", "sid", "jti", "iss", "aud", "roles"])
    async def test_a_missing_claim(self, elsewhere: Guest, claims: dict[str, Any], claim: str) -> None:
        del claims[claim]

        await self.refused(elsewhere, signed(claims))

    @pytest.mark.parametrize(
        ("claim", "value"),
        [("iss", "other"), ("aud", "other"), ("sub", "other"), ("sub", 5), ("sid", "other"), ("exp", "soon")],
    )
    async def test_a_wrong_claim(
        self, elsewhere: Guest, claims: dict[str, Any], claim: str, value: object
    ) -> None:
        await self.refused(elsewhere, signed({**claims, claim: value}))

    async def test_an_expired_one(self, elsewhere: Guest, claims: dict[str, Any]) -> None:
        now_s = int(time.time())

        await self.refused(elsewhere, signed({**claims, "exp": now_s - LEEWAY_S - 1}))

        resumed = await elsewhere.resume(signed({**claims, "exp": now_s - 1}))
        assert resumed.expires_in == 0

    async def test_a_refresh_token_with_another_seal(self, guest: Guest, name: str) -> None:
        tokens = await guest.sign_up(name)
        body, _, seal = tokens.refresh_token.rpartition("~")
        for forged in (body, f"{body}~", f"{body}~{seal[:-3]}AAA", f"{body}1~{seal}", "~~~~", "가~나"):
            await guest.refused(Refresh(refresh_token=forged), "INVALID_TOKEN")
            await guest.refused(Login(refresh_token=forged), "INVALID_TOKEN")
            await guest.refused(Logout(refresh_token=forged), "INVALID_TOKEN")

        assert await refresh(guest, tokens.refresh_token)

    async def test_a_sealed_refresh_token_that_was_never_given_out(self, guest: Guest, name: str) -> None:
        await guest.sign_up(name)
        tokens = Tokens(Secrets(SECRET.encode()), 900)

        await guest.refused(Refresh(refresh_token=tokens.refresh(name, "family", 1)), "INVALID_TOKEN")

        token = tokens.access(name, NextToken("family", 1, ""), Rights("ADMIN", ""), int(time.time() * 1000))
        await guest.refused(Resume(access_token=token), "INVALID_TOKEN")


class TestRefresh:
    async def test_rotation(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        first = await guest.sign_up(name)

        second = await refresh(elsewhere, first.refresh_token)
        third = await refresh(guest, second.refresh_token)

        assert len({pair.refresh_token for pair in (first, second, third)}) == 3
        assert third.expires_in == 900
        assert (await elsewhere.resume(third.access_token)).user_id == name

    async def test_reuse_revokes_the_family(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        first = await guest.sign_up(name)
        second = await refresh(guest, first.refresh_token)

        refusal = await elsewhere.refused(Refresh(refresh_token=first.refresh_token), "TOKEN_REUSED")

        assert refusal.status == 401
        await is_over(elsewhere, first, second)

    async def test_reuse_in_a_login_does_too(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        first = await guest.sign_up(name)
        second = await refresh(guest, first.refresh_token)

        await elsewhere.refused(Login(refresh_token=first.refresh_token), "TOKEN_REUSED")

        await is_over(elsewhere, first, second)

    @pytest.mark.parametrize("by_login", [False, True])
    async def test_reuse_signs_the_connection_out(
        self, town: Cluster, guest: Guest, elsewhere: Guest, name: str, by_login: bool
    ) -> None:
        first = await guest.sign_up(name)
        second = await refresh(guest, first.refresh_token)
        wire = await Wire.greeted(town["SOCK001"].endpoint)
        await wire.ask("auth.resume", {"accessToken": second.access_token}, 2)
        assert await takes_long_frames(wire)

        reused = first.refresh_token
        again = Login(refresh_token=reused) if by_login else Refresh(refresh_token=reused)
        await elsewhere.refused(again, "TOKEN_REUSED")

        async with asyncio.timeout(HEARING_S):
            while await takes_long_frames(wire):
                await asyncio.sleep(0.05)

    async def test_another_device_goes_on(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        phone = await guest.sign_up(name)
        desk = await elsewhere.sign_in(name)
        other = await Guest.at(guest_endpoint(elsewhere))
        await refresh(other, phone.refresh_token)
        await other.refused(Refresh(refresh_token=phone.refresh_token), "TOKEN_REUSED")

        assert (await refresh(other, desk.refresh_token)).access_token
        assert (await other.resume(desk.access_token)).user_id == name
        other.leave()

    async def test_racing_with_one_token(self, town: Cluster, guest: Guest, name: str) -> None:
        tokens = await guest.sign_up(name)
        guests = [await Guest.at(town.endpoints[number % 2]) for number in range(20)]

        answers = await asyncio.gather(
            *(refresh(each, tokens.refresh_token) for each in guests), return_exceptions=True
        )

        (pair,) = [answer for answer in answers if isinstance(answer, TokenPair)]
        codes = [str(answer).partition(":")[0] for answer in answers if isinstance(answer, Exception)]
        assert codes.count("TOKEN_REUSED") == 1
        assert codes.count("INVALID_TOKEN") == 18
        await is_over(guests[0], pair)
        for each in guests:
            each.leave()

    async def test_an_expired_family(self, cluster: Cluster) -> None:
        cluster.settings["auth.refresh_token_ttl_s"] = 1
        guest = await Guest.at(cluster.start()["SOCK001"].endpoint)
        tokens = await guest.sign_up("brief")

        await asyncio.sleep(1.1)

        await is_over(guest, tokens)
        guest.leave()

    async def test_the_oldest_of_six_devices_is_logged_out(self, guest: Guest, name: str) -> None:
        await guest.register(name)
        devices = []
        for _ in range(6):
            devices.append(await guest.sign_in(name))

        await is_over(guest, devices[0])

        for device in devices[1:]:
            assert await refresh(guest, device.refresh_token)


def sid(tokens: TokenPair) -> str:
    """The family that a pair belongs to."""
    return str(jwt.decode(tokens.access_token, options={"verify_signature": False})["sid"])


def guest_endpoint(guest: Guest) -> tuple[str, int]:
    """Where a guest is connected to."""
    host, port = guest.connection._transport.get_extra_info("peername")
    return host, port


class TestLoginWithARefreshToken:
    async def test_the_family_goes_on(self, town: Cluster, guest: Guest, elsewhere: Guest, name: str) -> None:
        first = await guest.sign_up(name)

        ticket = Pass.of(await elsewhere.ask(Login(refresh_token=first.refresh_token)))
        await elsewhere.wait(ticket)
        second = await elsewhere.finalize(ticket)

        families = [field for field in town.redis.hkeys(keys.refresh_tokens(name)) if "family:" in field]
        assert len(families) == 1
        sids = [
            jwt.decode(t.access_token, options={"verify_signature": False})["sid"] for t in (first, second)
        ]
        assert sids[0] == sids[1]
        third = await refresh(elsewhere, second.refresh_token)
        await elsewhere.refused(Refresh(refresh_token=first.refresh_token), "TOKEN_REUSED")
        await is_over(elsewhere, second, third)

    async def test_the_token_stays_good_until_the_ticket_is_spent(
        self, guest: Guest, elsewhere: Guest, name: str
    ) -> None:
        first = await guest.sign_up(name)
        ticket = Pass.of(await elsewhere.ask(Login(refresh_token=first.refresh_token)))

        second = await refresh(guest, first.refresh_token)

        await elsewhere.wait(ticket)
        third = await elsewhere.finalize(ticket)
        assert (await refresh(elsewhere, third.refresh_token)).access_token
        assert third.refresh_token != second.refresh_token

    async def test_a_family_that_ended_meanwhile(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        first = await guest.sign_up(name)
        ticket = Pass.of(await elsewhere.ask(Login(refresh_token=first.refresh_token)))
        await elsewhere.wait(ticket)

        await guest.ask(Logout(refresh_token=first.refresh_token))

        fresh = await elsewhere.finalize(ticket)
        await is_over(elsewhere, first)
        assert await refresh(elsewhere, fresh.refresh_token)


class TestLogout:
    async def test_all_of_the_family_is_over(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        first = await guest.sign_up(name)
        second = await refresh(guest, first.refresh_token)

        await elsewhere.ask(Logout(refresh_token=second.refresh_token))

        await is_over(elsewhere, first, second)
        await elsewhere.refused(Logout(refresh_token=second.refresh_token), "INVALID_TOKEN")

    async def test_the_connection_is_nobodys(self, town: Cluster, elsewhere: Guest, name: str) -> None:
        tokens = await elsewhere.sign_up(name)
        wire = await Wire.greeted(town["SOCK001"].endpoint)
        await wire.ask("auth.resume", {"accessToken": tokens.access_token}, 2)
        assert await takes_long_frames(wire)

        await wire.ask("auth.logout", {"refreshToken": tokens.refresh_token}, 3)

        async with asyncio.timeout(HEARING_S):
            while await takes_long_frames(wire):
                await asyncio.sleep(0.05)

    async def test_other_devices_stay(self, guest: Guest, elsewhere: Guest, name: str) -> None:
        phone = await guest.sign_up(name)
        desk = await elsewhere.sign_in(name)

        await elsewhere.ask(Logout(refresh_token=phone.refresh_token))

        assert await refresh(elsewhere, desk.refresh_token)
