"""The hub's audit log on its database: staged durably, integrated by one writer, read by all."""
