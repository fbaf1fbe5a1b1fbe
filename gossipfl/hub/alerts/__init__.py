"""Alerts: what needs a person is told to one who is not looking at the page."""
