"""Where alerts go: a webhook, and mail. Each send is one try; who calls decides about the next."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from pathlib import Path
from typing import Protocol

import aiohttp

from gossipfl import __version__
from gossipfl.errors import UserError
from gossipfl.fleet import files
from gossipfl.hub.alerts.messages import KEY, SIGNATURE, Message, signature, subject_line, text
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.setting_docs import is_loopback

SEND_S = 10.0  # guess: one try, from the name server to the answer
SECRET_BYTES_MIN = 16  # 128 bits, as an invitation's secret


class Undelivered(Exception):
    """One try failed. `wait_s`: how long the receiver asks us to wait."""

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_s = wait_s


class Channel(Protocol):
    @property
    def name(self) -> str:
        """In the queue and in words."""
        ...

    async def send(self, message: Message) -> None:
        """One try. Raises Undelivered."""
        ...


class Webhook:
    """POST of the JSON, signed. Redirects are refused: who is trusted is in the settings alone."""

    name = "webhook"

    def __init__(
        self, url: str, secret: bytes, tls: ssl.SSLContext, clock: Callable[[], int]
    ) -> None:
        self._url = url
        self._secret = secret
        self._tls = tls
        self._clock = clock

    async def send(self, message: Message) -> None:
        body = message.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"gossipfl-hub/{__version__}",
            KEY: message.key,
            SIGNATURE: signature(self._secret, body, self._clock()),
        }
        limit = aiohttp.ClientTimeout(total=SEND_S)
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=limit, connector=aiohttp.TCPConnector(ssl=self._tls, limit=1)
                ) as session,
                session.post(
                    self._url, data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                if 300 <= answer.status < 400:
                    raise Undelivered(f"it answers {answer.status}: redirects are not followed")
                if not 200 <= answer.status < 300:
                    wait = _seconds(answer.headers.get("Retry-After", ""))
                    raise Undelivered(f"it answers {answer.status}", wait)
        except TimeoutError:
            raise Undelivered(f"no answer within {SEND_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Undelivered(str(error) or type(error).__name__) from None


class Mail:
    """One mail to all who get them, over TLS; without it on loopback alone."""

    name = "mail"

    def __init__(self, settings: AlertsSection, password: str | None, tls: ssl.SSLContext) -> None:
        self._settings = settings
        self._password = password
        self._tls = tls

    async def send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(2 * SEND_S):
                await _in_thread(lambda: self._send(self.mail(message)))
        except TimeoutError:
            raise Undelivered(f"not done within {2 * SEND_S:g} s") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise Undelivered(_words(error)) from None

    def mail(self, message: Message) -> EmailMessage:
        content = message.content
        mail = EmailMessage()
        mail["Subject"] = subject_line(content)
        mail["From"] = self._settings.mail_from
        mail["To"] = ", ".join(self._settings.mail_to)
        mail["Date"] = format_datetime(localtime())
        # The same at every try: a mailbox can tell repetitions by it.
        mail["Message-ID"] = f"<{message.key}@{self._settings.mail_from.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence answers it
        mail.set_content(text(content))
        return mail

    def _send(self, mail: EmailMessage) -> None:
        host, port = _host_and_port(self._settings.mail_server)
        if self._settings.mail_tls == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=SEND_S, context=self._tls)
        else:
            server = smtplib.SMTP(host, port, timeout=SEND_S)
        with server:
            if self._settings.mail_tls == "starttls":
                server.starttls(context=self._tls)  # raises if the server does not offer it
            if self._settings.mail_user:
                server.login(self._settings.mail_user, self._password or "")
            server.send_message(mail)


def channels(settings: AlertsSection, clock: Callable[[], int]) -> list[Channel]:
    """Those that the settings name. Raises UserError GF811 where something is missing, and those
    of secret files."""
    found: list[Channel] = []
    if settings.webhook:
        secret = _secret(settings.webhook_secret_file, "alerts.webhook_secret_file")
        if len(secret) < SECRET_BYTES_MIN:
            cause = f"the secret has {len(secret)} bytes, and {SECRET_BYTES_MIN} are the least"
            raise UserError("GF811", cause)
        found.append(Webhook(settings.webhook, secret, default_tls(settings.ca_file), clock))
    if settings.mail_server:
        if not (settings.mail_from and settings.mail_to):
            raise UserError("GF811", "mail needs alerts.mail_from and alerts.mail_to")
        host, _ = _host_and_port(settings.mail_server)
        if settings.mail_tls == "none" and not is_loopback(host):
            raise UserError("GF811", f"alerts.mail_tls is none, and {host} is not loopback")
        password = None
        if settings.mail_user:
            password = _secret(settings.mail_password_file, "alerts.mail_password_file").decode()
        found.append(Mail(settings, password, default_tls(settings.ca_file)))
    return found


def _host_and_port(text: str) -> tuple[str, int]:
    """Of a mail server, as the settings have checked it."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _secret(path: Path | None, name: str) -> bytes:
    if path is None:
        raise UserError("GF811", f"{name} is not set")
    return files.read_secret(path).strip()


def default_tls(authorities: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise UserError("GF811", f"alerts.ca_file {authorities}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() and len(text) <= 6 else 0.0


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        told = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return f"the server says {error.smtp_code} {told}"
    return str(error) or type(error).__name__


async def _in_thread(work: Callable[[], None]) -> None:
    """In a daemon thread: a mail server that stalls must not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        problem: BaseException | None = None
        try:
            work()
        except Exception as error:
            problem = error
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, problem)

    threading.Thread(target=run, name="alert-mail", daemon=True).start()
    await done
