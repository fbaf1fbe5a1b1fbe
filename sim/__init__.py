"""The world under virtual time, running the very node that ships."""
