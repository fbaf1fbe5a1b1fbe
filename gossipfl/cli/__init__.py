"""The `gossipfl` command: dispatch only. It may reach every room; nothing imports it."""
