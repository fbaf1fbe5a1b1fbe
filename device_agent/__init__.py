"""The service on one box: composition root, settings, trainer, data, store."""
