"""Where alerts go, over real sockets: what is sent, to whom it is not, and what failing says."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from alertkit import SECRET, hook, is_signed, mail_server
from pageserver import tls_of_tests

from gossipfl.errors import UserError
from gossipfl.fleet import files
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.hub.alerts import channels as rooms
from gossipfl.hub.alerts.channels import Undelivered, channels
from gossipfl.hub.alerts.messages import Composer, Message, trial
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.settings import load_settings

Gossipfl = Callable[..., tuple[int, str, str]]


def message(title: str = "A test alert") -> Message:
    made = trial("ab" * 16, 1_800_000_000)
    made = replace(made, finding=replace(made.finding, title=title))
    composer = Composer("f1ee7", "hubx", "https://hub.example/", name_devices=True)
    return Message(f"{made.id}-test", composer.body(made, "test", made.began))


def secret_file(folder: Path, data: bytes = SECRET) -> Path:
    path = folder / "webhook.secret"
    files.write_file(path, data + b"\n")
    return path


def section(folder: Path, url: str, **more: object) -> AlertsSection:
    made = AlertsSection(webhook=url, webhook_secret_file=secret_file(folder))
    return replace(made, **more)  # type: ignore[arg-type]


async def send(settings: AlertsSection, what: Message | None = None) -> None:
    (channel,) = channels(settings, lambda: 1_800_000_007)
    await channel.send(what or message())


async def test_what_a_webhook_gets_is_signed_and_the_same_at_each_try(tmp_path: Path) -> None:
    async with hook() as listening:
        settings = section(tmp_path, listening.url)
        await send(settings)
        await send(settings)
    (headers, body), (again, body_again) = listening.got
    assert body == body_again
    assert headers["Idempotency-Key"] == again["Idempotency-Key"] == "ab" * 16 + "-test"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Gossipfl-Signature"].startswith("t=1800000007,v1=")
    assert is_signed(headers, body)
    assert not is_signed(headers, body, b"another secret of the tests")
    content = json.loads(body)
    assert content == {
        "schema": 1,
        "id": "ab" * 16,
        "event": "test",
        "kind": "task",
        "level": "note",
        "title": "A test alert",
        "words": content["words"],
        "device": None,
        "since": 1_800_000_000,
        "at": 1_800_000_000,
        "fleet": "f1ee7",
        "hub": "hubx",
        "link": "https://hub.example/",
    }


@pytest.mark.parametrize(
    ("status", "headers", "says", "wait_s"),
    [
        (500, {}, "it answers 500", 0.0),
        (429, {"Retry-After": "120"}, "it answers 429", 120.0),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "it answers 503", 0.0),
        (404, {}, "it answers 404", 0.0),
        (307, {"Location": "http://127.0.0.1:1/"}, "redirects are not followed", 0.0),
        (301, {"Location": "https://evil.example/"}, "redirects are not followed", 0.0),
    ],
)
async def test_what_is_no_yes_is_a_failure(
    tmp_path: Path, status: int, headers: dict[str, str], says: str, wait_s: float
) -> None:
    async with hook() as listening:
        listening.status, listening.headers = status, headers
        with pytest.raises(Undelivered, match=says) as raised:
            await send(section(tmp_path, listening.url))
    assert raised.value.wait_s == wait_s
    assert len(listening.got) == 1


async def test_who_does_not_answer_costs_one_bounded_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "SEND_S", 0.2)
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()
    with pytest.raises(Undelivered, match=r"no answer within 0\.2 s"):
        await send(section(tmp_path, f"http://127.0.0.1:{port}/"))
    mail = AlertsSection(
        mail_server=f"127.0.0.1:{port}", mail_tls="none", mail_from="a@b.example",
        mail_to=("c@d.example",),
    )  # fmt: skip
    with pytest.raises(Undelivered):
        await send(mail)
    assert time.monotonic() - began < 5
    server.close()
    with pytest.raises(Undelivered, match="onnect"):
        await send(section(tmp_path, f"http://127.0.0.1:{port}/"))


async def test_only_whom_the_authorities_vouch_for_gets_it(tmp_path: Path) -> None:
    tls, pem = tls_of_tests(tmp_path)
    async with hook(tls) as listening:
        with pytest.raises(Undelivered, match="certificate"):
            await send(section(tmp_path, listening.url))
        assert listening.got == []
        await send(section(tmp_path, listening.url, ca_file=pem))
        assert len(listening.got) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('webhook = "http://10.0.0.1/x"', "http is for loopback alone"),
        ('webhook = "http://localhost.evil.example/x"', "http is for loopback alone"),
        ('webhook = "ftp://127.0.0.1/x"', "https://HOST"),
        ('webhook = "https://"', "https://HOST"),
        ('webhook = "https://ann:secret@hooks.example/x"', "no name or password"),
        ('webhook = "https://hooks.example:99999/x"', "Port out of range"),
        ('kinds = ["disc"]', "'disc' is none"),
        ('mail_server = "mail.example"', "not host:port"),
        ('mail_server = "mail.example:65536"', "not host:port"),
        ('mail_server = "mail\\nexample:25"', "not host:port"),
        ('mail_to = ["ann"]', "'ann' is not name@host"),
        ('mail_from = "ann@example.org, bob@example.org"', "not name@host"),
        ('page_url = "hub.example"', "https://HOST"),
        ('mail_tls = "maybe"', "starttls, tls, none"),
        ("hold_s = -1", "0 to 86400"),
    ],
)
def test_settings_that_make_no_sense_are_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(f"[alerts]\n{text}\n")
    with pytest.raises(UserError) as raised:
        load_settings([path])
    assert raised.value.code == "GF102"
    assert told in raised.value.cause


def test_secrets_are_there_long_enough_and_private(tmp_path: Path) -> None:
    url = "https://hooks.example/x"
    with pytest.raises(UserError, match="webhook_secret_file is not set"):
        channels(AlertsSection(webhook=url), int)
    short = AlertsSection(webhook=url, webhook_secret_file=secret_file(tmp_path, b"short"))
    with pytest.raises(UserError, match="5 bytes"):
        channels(short, int)
    made = section(tmp_path, url)
    assert made.webhook_secret_file is not None
    made.webhook_secret_file.chmod(0o644)
    with pytest.raises(UserError, match="others can reach it"):
        channels(made, int)
    mail = AlertsSection(mail_server="mail.example:25", mail_from="a@b.c", mail_to=("d@e.f",))
    with pytest.raises(UserError, match="is not loopback"):
        channels(replace(mail, mail_tls="none"), int)
    with pytest.raises(UserError, match="mail_from and"):
        channels(replace(mail, mail_to=()), int)
    with pytest.raises(UserError, match="mail_password_file is not set"):
        channels(replace(mail, mail_user="ann"), int)
    assert [c.name for c in channels(mail, int)] == ["mail"]
    assert channels(AlertsSection(), int) == []


def by_mail(where: str, tls: str, ca_file: Path | None = None) -> AlertsSection:
    return AlertsSection(
        mail_server=where,
        mail_tls=tls,
        mail_from="hub@b.example",
        mail_to=("ann@d.example", "bob@d.example"),
        ca_file=ca_file,
    )


async def test_a_mail_says_it_in_words(tmp_path: Path) -> None:
    tls, pem = tls_of_tests(tmp_path)
    hostile = "Bad\r\nBcc: eve@evil.example\r\n\r\nnews"
    async with mail_server(tls=tls) as (where, mails):
        await send(by_mail(where, "tls", pem))
        await send(by_mail(where, "tls", pem), message(hostile))
        with pytest.raises(Undelivered, match="certificate"):
            await send(by_mail(where, "tls"))
    assert len(mails) == 2
    mail = email.message_from_string(mails[0], policy=email.policy.default)
    assert mail["Subject"] == "[gossipfl] test: A test alert"
    assert mail["To"] == "ann@d.example, bob@d.example"
    assert mail["Message-ID"] == f"<{'ab' * 16}-test@b.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "nothing is wrong" in mails[0]
    assert "https://hub.example/" in mails[0]
    forged = email.message_from_string(mails[1], policy=email.policy.default)
    assert forged["Bcc"] is None
    assert "eve@evil.example" in forged["Subject"]


async def test_no_mail_goes_in_the_clear_to_who_offers_no_tls(tmp_path: Path) -> None:
    async with mail_server() as (where, mails):
        with pytest.raises(Undelivered, match="STARTTLS"):
            await send(by_mail(where, "starttls"))
        assert mails == []
        await send(by_mail(where, "none"))
        assert len(mails) == 1
    async with mail_server(refuses=True) as (where, mails):
        with pytest.raises(Undelivered):
            await send(by_mail(where, "none"))
        assert mails == []


async def test_the_verb_says_whether_a_test_alert_went(tmp_path: Path, gossipfl: Gossipfl) -> None:
    enrol_local(make_fleet(tmp_path / "fleet"), tmp_path / "hub", role="hub")
    config = tmp_path / "hub" / "hub.toml"
    config.write_text("")
    argv = ("hub", "alerts", "test", "--config", str(config))
    assert gossipfl(*argv)[0] == 3
    async with hook() as listening:
        secret = secret_file(tmp_path)
        config.write_text(
            f'[alerts]\nwebhook = "{listening.url}"\nwebhook_secret_file = "{secret}"\n'
        )
        code, out, _ = await asyncio.to_thread(gossipfl, *argv)
        assert (code, out.strip()) == (0, "webhook: the test alert was taken")
        assert listening.contents[0]["event"] == "test"
        listening.status = 403
        code, out, err = await asyncio.to_thread(gossipfl, *argv)
    assert code == 4
    assert "webhook: it answers 403" in out + err
