"""The settings `[alerts]`: what is an alert, and where it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from gossipfl.setting_docs import Doc, addresses, between, is_loopback, one_of

KINDS = ("quarantine", "budget", "convergence", "silence", "disk", "log", "task", "policy")
"""What an alert may be about: `page.model.Kind`."""
DAY_S = 86_400


def url_problem(text: str) -> str | None:
    """What is wrong with the address of a webhook."""
    if not text:
        return None
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("https", "http") or not host or not text.isprintable():
        return "allowed: https://HOST[:PORT]/PATH"
    if parts.username is not None or parts.password is not None:
        return "no name or password in it: what is sent is signed with webhook_secret_file"
    if parts.scheme == "http" and not is_loopback(host):
        return "http is for loopback alone: use https"
    return None


def page_problem(text: str) -> str | None:
    parts = urlsplit(text)
    if not text or (parts.scheme in ("https", "http") and parts.hostname and text.isprintable()):
        return None
    return "allowed: https://HOST[:PORT]"


def server_problem(text: str) -> str | None:
    if not text.isprintable():
        return f"{text!r} is not host:port"
    return addresses((text,)) if text else None


def address_problem(text: str) -> str | None:
    """Of one mail address, written plainly."""
    name, _, host = text.rpartition("@")
    plain = text.isprintable() and text.isascii() and not set(text) & set(' ,;<>()"\\')
    return None if not text or (name and host and plain) else f"{text!r} is not name@host"


def _addresses(values: tuple[str, ...]) -> str | None:
    return next((p for p in map(address_problem, values) if p), None)


def _kinds(values: tuple[str, ...]) -> str | None:
    wrong = [value for value in values if value not in KINDS]
    return f"{wrong[0]!r} is none; allowed: {', '.join(KINDS)}" if wrong else None


@dataclass(frozen=True, slots=True)
class AlertsSection:
    kinds: Annotated[
        tuple[str, ...],
        Doc(f"What alerts are made of: {', '.join(KINDS)}.", "all but policy", _kinds),
    ] = KINDS[:-1]
    hold_s: Annotated[
        int,
        Doc("It must hold for so many seconds before anybody is told. What cannot pass by itself "
            "is told at once.", "guess: a device that restarts is back by then",
            between(0, DAY_S)),
    ] = 60  # fmt: skip
    clear_s: Annotated[
        int,
        Doc("It must be gone for so many seconds before its end is told.",
            "guess: twice hold_s, so that what comes and goes is one alert", between(0, DAY_S)),
    ] = 120  # fmt: skip
    silence_s: Annotated[
        int,
        Doc("A device that was not heard of for so many seconds is silent.",
            "guess: a reboot is shorter", between(10, 30 * DAY_S)),
    ] = 600  # fmt: skip
    budget_share: Annotated[
        float,
        Doc("A device that has spent this share of its privacy budget is near its end.",
            "guess: time to decide before it ends", between(0.01, 1.0)),
    ] = 0.8  # fmt: skip
    accuracy_drop: Annotated[
        float,
        Doc("The measured accuracy is that much below the best of this run (needs star.holdout).",
            "guess: more than runs differ", between(0.001, 1.0)),
    ] = 0.05  # fmt: skip
    stall_s: Annotated[
        int,
        Doc("No device has merged for so many seconds, though two are there and the policy has no "
            "end; 0: not looked at.", "guess: 120 rounds of the preset lan",
            between(0, 30 * DAY_S)),
    ] = 3_600  # fmt: skip
    log_s: Annotated[
        int,
        Doc("Entries have waited for a checkpoint for so many seconds.",
            "guess: ten checkpoints of the preset lan", between(10, 30 * DAY_S)),
    ] = 600  # fmt: skip
    disk_free_mb: Annotated[
        int,
        Doc("Fewer megabytes are free where the state folder lies; 0: only a full disk counts.",
            "guess: some days of receipts", between(0, 1_000_000)),
    ] = 500  # fmt: skip
    name_devices: Annotated[
        bool,
        Doc("Messages name devices. false: they say what happened, and that the page has more.",
            "on: who gets them runs the fleet"),
    ] = True  # fmt: skip
    page_url: Annotated[
        str,
        Doc("Address of the page as people reach it: messages link to it.",
            "empty: no links", page_problem),
    ] = ""  # fmt: skip
    webhook: Annotated[
        str,
        Doc("https address to which alerts are posted as JSON.", "empty: no webhook", url_problem),
    ] = ""
    webhook_secret_file: Annotated[
        Path | None,
        Doc("File with the secret (16 bytes or more) that signs them, mode 0600.", "empty: none"),
    ] = None
    mail_server: Annotated[
        str, Doc('Mail server, "host:port".', "empty: no mail", server_problem)
    ] = ""
    mail_tls: Annotated[
        str,
        Doc("starttls (port 587), tls (port 465), or none, for loopback alone.",
            "RFC 8314 prefers tls; most servers take starttls", one_of("starttls", "tls", "none")),
    ] = "starttls"  # fmt: skip
    mail_user: Annotated[str, Doc("Name to log in to it.", "empty: no login")] = ""
    mail_password_file: Annotated[
        Path | None, Doc("File with its password, mode 0600.", "empty: none")
    ] = None
    mail_from: Annotated[str, Doc("Sender of the mails.", "empty", address_problem)] = ""
    mail_to: Annotated[tuple[str, ...], Doc("Who gets them.", "empty: nobody", _addresses)] = ()
    ca_file: Annotated[
        Path | None,
        Doc("PEM file of the authorities that webhook and mail server are checked against.",
            "empty: the system's"),
    ] = None  # fmt: skip
