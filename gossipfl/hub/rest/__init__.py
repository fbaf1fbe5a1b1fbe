"""How the hub speaks HTTP: one table of routes, from which dispatch, roles and OpenAPI come."""

from __future__ import annotations
