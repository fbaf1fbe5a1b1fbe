"""One try of every channel, for who wants to know whether alerts would arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gossipfl.hub.alerts.channels import Channel, Undelivered
from gossipfl.hub.alerts.messages import Message


async def outcomes(channels: Sequence[Channel], message: Message) -> dict[str, str]:
    """By channel: why it failed; "" if it went. All at once."""

    async def outcome(channel: Channel) -> str:
        try:
            await channel.send(message)
        except Undelivered as error:
            return str(error)
        return ""

    said = await asyncio.gather(*(outcome(channel) for channel in channels))
    return {channel.name: words for channel, words in zip(channels, said, strict=True)}
