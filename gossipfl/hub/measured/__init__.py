"""Published models judged on public data: what a hub may say of accuracy without asking devices."""
