"""Erasure (GDPR article 17): what the hub holds of one device or star client goes for good."""
