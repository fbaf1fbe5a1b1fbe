"""Users, passwords, tokens and sessions, as somebody with a client meets them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from authkit import (
    FLEET,
    LOG_N,
    PASSWORD,
    SEED,
    Client,
    Clock,
    bearer,
    client_of,
    make_auth,
    user,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gossipfl.errors import UserError
from gossipfl.hub.auth import passwords
from gossipfl.hub.auth.authenticator import COOKIE
from gossipfl.hub.auth.routes import REFRESH_COOKIE
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.auth.tokens import ACCESS_S, Tokens
from gossipfl.hub.database import Database
from gossipfl.hub.rest.access import Role
from gossipfl.hub.rest.problems import Problem

ME = "/api/v1/auth/me"
API = "/api/v1/auth"


@pytest.fixture
async def client(auth: Auth) -> AsyncIterator[Client]:
    async with client_of(auth) as client:
        yield client


async def login(client: Client, name: str, password: str = PASSWORD) -> Any:
    return await client.post(f"{API}/token", json={"name": name, "password": password})


async def status_of(client: Client, token: str, path: str = ME) -> int:
    return (await client.get(path, headers=bearer(token))).status


# --- passwords and users ---------------------------------------------------------------------


def test_a_password_is_checked_against_its_salted_hash() -> None:
    one, other = passwords.make(PASSWORD, LOG_N), passwords.make(PASSWORD, LOG_N)
    assert one != other
    assert PASSWORD not in one
    assert passwords.check(PASSWORD, one)
    assert not passwords.check(PASSWORD + " ", one)
    assert not passwords.check("", "")
    assert not passwords.check("x" * 1_000_000, one)


def test_the_hash_is_scrypt_of_rfc_7914() -> None:
    kind, log_n, block, parallel, salt, digest = passwords.make(PASSWORD, LOG_N).split("$")
    found = hashlib.scrypt(
        PASSWORD.encode(),
        salt=base64.b64decode(salt),
        n=2 ** int(log_n),
        r=int(block),
        p=int(parallel),
        dklen=32,
    )
    assert kind == "scrypt"
    assert found == base64.b64decode(digest)


@pytest.mark.parametrize("bad", ["short", "ann is my name, ann it is", "x" * 300, "ababababababab"])
async def test_bad_passwords_are_refused_and_the_link_still_works(auth: Auth, bad: str) -> None:
    code = await auth.users.add("ann", Role.OPERATOR)
    with pytest.raises(UserError) as refused:
        await auth.users.redeem(code, bad)
    assert refused.value.code == "GF831"
    assert await auth.users.redeem(code, PASSWORD)


async def test_a_link_works_once_and_for_a_day(auth: Auth, clock: Clock, client: Client) -> None:
    code = await auth.users.add("ann", Role.OPERATOR)
    assert code.isalnum()
    used = await client.post(f"{API}/link", json={"code": code, "password": PASSWORD})
    assert used.status == 200
    again = await client.post(f"{API}/link", json={"code": code, "password": PASSWORD})
    assert again.status == 401
    old = await auth.users.link("ann")
    clock.now += 86_400
    assert await auth.users.redeem(old, PASSWORD) is None
    assert (await login(client, "ann")).status == 200


async def test_the_first_operator_comes_by_a_link(auth: Auth) -> None:
    code = await auth.users.add("ann", Role.OPERATOR)
    assert not await auth.users.has_operator()
    await auth.users.redeem(code, PASSWORD)
    assert await auth.users.has_operator()


async def test_no_user_can_log_in_before_it_has_a_password(auth: Auth, client: Client) -> None:
    await auth.users.add("ann", Role.OPERATOR)
    assert (await login(client, "ann", "")).status == 422
    assert (await login(client, "ann", PASSWORD)).status == 401


async def test_operators_manage_users(auth: Auth, client: Client) -> None:
    token = await user(auth, "ann", Role.OPERATOR)
    body = {"name": "vic", "role": "viewer", "labels": {"site": "north"}}
    made = await client.post("/api/v1/users", json=body, headers=bearer(token))
    code = (await made.json())["code"]
    assert made.status == 201
    twice = await client.post("/api/v1/users", json=body, headers=bearer(token))
    assert twice.status == 409
    got = await client.post(f"{API}/link", json={"code": code, "password": PASSWORD})
    viewer = (await got.json())["access_token"]
    me = await client.get(ME, headers=bearer(viewer))
    assert await me.json() == {"subject": "vic", "role": "viewer", "labels": {"site": "north"}}
    assert await status_of(client, viewer, "/api/v1/users") == 403
    gone = await client.post("/api/v1/users/vic/disable", headers=bearer(token))
    assert (await gone.json())["is_disabled"] is True
    assert await status_of(client, viewer) == 401
    assert (await login(client, "vic")).status == 401
    last = await client.post("/api/v1/users/ann/disable", headers=bearer(token))
    assert (last.status, (await last.json())["code"]) == (409, "GF833")
    listed = await client.get("/api/v1/users", headers=bearer(token))
    assert [u["name"] for u in (await listed.json())["users"]] == ["ann", "vic"]


async def test_only_viewers_can_be_limited(auth: Auth) -> None:
    with pytest.raises(UserError, match="viewer"):
        await auth.users.add("ann", Role.OPERATOR, {"site": "north"})


# --- logging in ------------------------------------------------------------------------------


async def test_wrong_passwords_and_unknown_names_read_the_same(auth: Auth, client: Client) -> None:
    await user(auth, "ann", Role.OPERATOR)
    wrong = await login(client, "ann", "not the password at all")
    unknown = await login(client, "bob", "not the password at all")
    assert wrong.status == unknown.status == 401
    assert await wrong.text() == await unknown.text()


async def test_guessing_is_slowed_down(auth: Auth, client: Client, clock: Clock) -> None:
    await user(auth, "ann", Role.OPERATOR)
    for _ in range(5):
        assert (await login(client, "ann", "not the password at all")).status == 401
    locked = await login(client, "ann")
    assert (locked.status, locked.headers["Retry-After"]) == (429, "30")
    clock.now += 31
    assert (await login(client, "ann")).status == 200


async def test_a_new_password_ends_all_other_sessions(auth: Auth, client: Client) -> None:
    token = await user(auth, "ann", Role.OPERATOR)
    body = {"password": PASSWORD, "new_password": "another sentence that is long"}
    wrong = {**body, "password": "no such thing at all"}
    refused = await client.post(f"{API}/credentials", json=wrong, headers=bearer(token))
    assert refused.status == 403
    changed = await client.post(f"{API}/credentials", json=body, headers=bearer(token))
    assert changed.status == 200
    assert await status_of(client, token) == 401
    assert await status_of(client, (await changed.json())["access_token"]) == 200
    assert (await login(client, "ann")).status == 401
    assert (await login(client, "ann", body["new_password"])).status == 200


# --- tokens ----------------------------------------------------------------------------------


async def test_a_token_ends_after_a_quarter_of_an_hour(
    auth: Auth, client: Client, clock: Clock
) -> None:
    token = await user(auth, "ann", Role.OPERATOR)
    clock.now += ACCESS_S - 1
    assert await status_of(client, token) == 200
    clock.now += 1
    assert await status_of(client, token) == 401


def forged(claims: dict[str, Any], header: dict[str, Any], key: bytes = b"") -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    message = f"{part(header)}.{part(claims)}"
    signature = hmac.new(key, message.encode(), "sha256").digest() if key else b""
    return f"{message}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def hostile(clock: Clock) -> dict[str, str]:
    """Tokens of which none may count, by what is wrong with it."""
    now = int(clock.now)
    good = {
        "iss": "gossipfl-hub",
        "aud": FLEET,
        "sub": "ann",
        "role": "operator",
        "family": "f",
        "jti": "j",
        "iat": now,
        "nbf": now,
        "exp": now + 900,
    }
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    public = key.public_key().public_bytes_raw()

    def signed(**changes: Any) -> str:
        claims = {k: v for k, v in {**good, **changes}.items() if v is not None}
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"typ": "at+jwt"})

    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return {
        "nothing": "",
        "no token": "x.y.z",
        "alg none": forged(good, {"alg": "none", "typ": "at+jwt"}),
        "alg None": forged(good, {"alg": "None", "typ": "at+jwt"}),
        "HS256 with the public key": forged(good, {"alg": "HS256", "typ": "at+jwt"}, public),
        "another key": jwt.encode(good, other, algorithm="EdDSA", headers={"typ": "at+jwt"}),
        "wrong audience": signed(aud="another fleet"),
        "no audience": signed(aud=None),
        "wrong issuer": signed(iss="somebody"),
        "expired": signed(iat=now - 901, exp=now - 1),
        "not valid yet": signed(iat=now + 60, nbf=now + 60, exp=now + 600),
        "lasts a day": signed(exp=now + 86_400),
        "no end": signed(exp=None),
        "no id": signed(jti=None),
        "unknown role": signed(role="root"),
        "a number as subject": signed(sub=7),
        "a text as date": signed(exp="never"),
        "an id token": jwt.encode(good, key, algorithm="EdDSA", headers={"typ": "JWT"}),
        "flipped bit": signed()[:-2] + ("AA" if signed()[-2:] != "AA" else "BA"),
        "too long": signed(pad="x" * 5_000),
    }


@pytest.mark.parametrize("what", sorted(hostile(Clock())))
async def test_no_hostile_token_counts(client: Client, clock: Clock, what: str) -> None:
    response = await client.get(ME, headers=bearer(hostile(clock)[what]))
    assert response.status == 401
    assert (await response.json())["code"] == "GF821"


async def test_the_table_of_hostile_tokens_could_let_one_in(client: Client, clock: Clock) -> None:
    good = Tokens(SEED, FLEET).mint("ann", Role.OPERATOR, "f", int(clock.now))
    assert await status_of(client, good) == 200
    basic = await client.get(ME, headers={"Authorization": f"Basic {good}"})
    assert basic.status == 401


async def test_refresh_tokens_work_once_and_a_reused_one_ends_the_session(
    auth: Auth, client: Client, clock: Clock
) -> None:
    await user(auth, "ann", Role.OPERATOR)
    first = await (await login(client, "ann")).json()
    shown = {"refresh_token": first["refresh_token"]}
    second = await (await client.post(f"{API}/refresh", json=shown)).json()
    assert await status_of(client, second["access_token"]) == 200
    clock.now += 60.0  # no other tab of the same browser
    stolen = await client.post(f"{API}/refresh", json=shown)
    assert stolen.status == 401
    assert "used before" in (await stolen.json())["detail"]
    assert await status_of(client, second["access_token"]) == 401
    mine = await client.post(f"{API}/refresh", json={"refresh_token": second["refresh_token"]})
    assert mine.status == 401


@pytest.mark.parametrize("secret", ["aaaaaaaaaaaaaaaa", "", "a.b", "a." + "0" * 32, "\udcff", "\0"])
async def test_who_knows_a_session_by_its_access_token_alone_cannot_end_it(
    auth: Auth, client: Client, secret: str
) -> None:
    await user(auth, "ann", Role.OPERATOR)
    pair = await (await login(client, "ann")).json()
    family = jwt.decode(pair["access_token"], options={"verify_signature": False})["family"]
    with pytest.raises(Problem):
        await auth.sessions.refresh(f"{family}.{secret}")
    assert await status_of(client, pair["access_token"]) == 200
    mine = await client.post(f"{API}/refresh", json={"refresh_token": pair["refresh_token"]})
    assert mine.status == 200


async def test_a_refresh_token_ends_too(auth: Auth, client: Client, clock: Clock) -> None:
    await user(auth, "ann", Role.OPERATOR)
    pair = await (await login(client, "ann")).json()
    clock.now += 30 * 86_400
    shown = {"refresh_token": pair["refresh_token"]}
    assert (await client.post(f"{API}/refresh", json=shown)).status == 401


async def test_revoking_ends_a_session_at_every_instance(
    auth: Auth, client: Client, database: Database, clock: Clock
) -> None:
    await user(auth, "ann", Role.OPERATOR)
    pair = await (await login(client, "ann")).json()
    other = make_auth(database, clock)
    assert (await other.sessions.check(pair["access_token"])).subject == "ann"
    done = await client.post(f"{API}/revoke", json={}, headers=bearer(pair["access_token"]))
    assert done.status == 204
    assert await status_of(client, pair["access_token"]) == 401
    shown = {"refresh_token": pair["refresh_token"]}
    assert (await client.post(f"{API}/refresh", json=shown)).status == 401
    with pytest.raises(Exception, match="revoked"):  # at once: nobody keeps what was revoked
        await other.sessions.check(pair["access_token"])


async def test_a_subject_has_so_many_sessions_at_most(auth: Auth, clock: Clock) -> None:
    pairs = []
    for _ in range(33):
        clock.now += 1
        pairs.append(await auth.sessions.begin("ann", Role.OPERATOR))
    with pytest.raises(Exception, match="revoked"):
        await auth.sessions.check(pairs[0].access)
    assert (await auth.sessions.check(pairs[1].access)).subject == "ann"


# --- browsers --------------------------------------------------------------------------------


async def browser(auth: Auth, client: Client) -> tuple[dict[str, str], str]:
    """Cookies as a browser would send them, and the CSRF value of the page."""
    await user(auth, "ann", Role.OPERATOR)
    body = {"name": "ann", "password": PASSWORD}
    response = await client.post(f"{API}/session", json=body)
    assert response.status == 200
    for header in response.headers.getall("Set-Cookie"):
        assert all(word in header for word in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"))
    cookies = {name: response.cookies[name].value for name in (COOKIE, REFRESH_COOKIE)}
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return {"Cookie": cookie}, (await response.json())["csrf"]


async def test_a_browser_reads_by_cookie_and_writes_with_intent(auth: Auth, client: Client) -> None:
    cookies, csrf = await browser(auth, client)
    assert (await client.get(ME, headers=cookies)).status == 200
    body = {"name": "vic", "role": "viewer"}
    tricks: list[dict[str, str]] = [
        {},
        {"X-CSRF-Token": "guess"},
        {"X-CSRF-Token": csrf, "Origin": "https://evil.example"},
        {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": csrf, "Origin": "null"},
    ]
    for trick in tricks:
        refused = await client.post("/api/v1/users", json=body, headers={**cookies, **trick})
        assert refused.status == 403, trick
    own = {"X-CSRF-Token": csrf, "Origin": f"http://{client.host}:{client.port}"}
    made = await client.post("/api/v1/users", json=body, headers={**cookies, **own})
    assert made.status == 201


async def test_a_browser_extends_and_ends_its_session(auth: Auth, client: Client) -> None:
    cookies, csrf = await browser(auth, client)
    foreign = {**cookies, "Origin": "https://evil.example"}
    assert (await client.post(f"{API}/session/refresh", headers=foreign)).status == 403
    extended = await client.post(f"{API}/session/refresh", headers=cookies)
    assert extended.status == 200
    ended = await client.post(f"{API}/session/end", headers={**cookies, "X-CSRF-Token": csrf})
    assert ended.status == 204
    assert (await client.get(ME, headers=cookies)).status == 401


async def test_without_a_certificate_there_is_no_token_for_a_device(client: Client) -> None:
    shown = {"member": base64.b64encode(b"member").decode()}
    assert (await client.post(f"{API}/device", json=shown)).status == 401
