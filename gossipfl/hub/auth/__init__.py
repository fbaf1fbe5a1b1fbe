"""Who somebody is to a hub: users, passwords, tokens, sessions, and what is revoked."""

from __future__ import annotations
