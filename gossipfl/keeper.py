"""What of our own stays in the store and what leaves: links, chapters, updates, list objects.

Collects for the next commit; nothing here is durable or public until the publisher says so.
"""

from __future__ import annotations

from gossipfl.core import Core
from gossipfl.messages import Marker
from gossipfl.objects import Listing, digest, pack_list
from gossipfl.ownchain import Link
from gossipfl.retention import Closed, Retention, Statements
from gossipfl.wire import encode, pack, seal, unpack

KEPT_BYTES_MAX = 1024 * 1024


class Keeper:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.objects: dict[bytes, bytes] = {}
        self.retire: list[bytes] = []
        self.links: list[tuple[str, int, bytes]] = []
        self.prune: list[tuple[str, int]] = []
        self.retention = Retention()
        self.statements = Statements()
        self.parts = 1  # objects that one of our updates is made of
        self._updates: list[bytes] = []
        self._lists: dict[str, frozenset[bytes]] = {}  # digests of a list and of its pages
        self._found: dict[str, tuple[Listing, bytes]] = {}  # the newest form, and its digest
        self._markers: dict[str, bytes] = {}

    def store(self, data: bytes) -> bytes:
        """This object becomes durable with the next commit. Returns its digest."""
        name = digest(data)
        self.objects[name] = data
        return name

    def link(self, chain: str, link: Link, chapter: bytes) -> bool:
        """A new own link, and the chapter that it completes, or b"". True if something leaves."""
        self.store(link.envelope)
        self.links.append((chain, link.number, link.digest))
        return bool(chapter) and self._close(chain, link.number, chapter)

    def _close(self, chain: str, last: int, chapter: bytes) -> bool:
        """A chapter is complete: keep it, and let go what is too old, with a signed marker."""
        core, now = self._core, self._core.time()
        first = last + 1 - core.limits.chapter
        self.retention.close(Closed(chain, first, last, self.store(chapter), now))
        core.publisher.touch("history")
        gone = self.retention.expired(chain, now)
        if gone is None:
            return False
        self.prune.append((chain, gone.below))
        self.retire.extend(gone.chapters)
        if chain == "receipt":
            self.retire.extend(self.statements.pruned(gone.below))
            core.publisher.touch("statements")
        marker = Marker(core.fleet, core.device, chain, gone.below, now)
        self._markers[chain] = seal("marker", encode(marker), core.signer)
        return True

    def promised(self, statement: bytes | None, receipt: int) -> None:
        """This own receipt names this statement, which stays as long as one that does."""
        if statement is None:
            return
        gone = self.statements.named(statement, receipt)
        if gone is not None:
            self.retire.extend(gone)
            self._core.publisher.touch("statements")

    def list(self, name: str, found: Listing | None) -> bytes | None:
        """Store the newest form of a list object and let the one before go. Its digest."""
        if found is None:
            return None
        same = self._found.get(name)
        if same is not None and same[0] is found and self._lists.get(name):
            return same[1]
        objects = {digest(data): data for data in (found.root, *found.pages)}
        old = self._lists.get(name, frozenset())
        self.objects.update((key, data) for key, data in objects.items() if key not in old)
        self.retire.extend(sorted(old - objects.keys()))
        self._lists[name] = frozenset(objects)
        self._found[name] = found, digest(found.root)
        return self._found[name][1]

    def listed(self) -> frozenset[bytes]:
        """Digests of all list objects that the newest head names, pages too."""
        return frozenset().union(*self._lists.values())

    def markers(self) -> Listing | None:
        """The list object of pruning markers, None while nothing was pruned."""
        return Listing(pack_list(list(self._markers.values()))) if self._markers else None

    def published(self, update: bytes) -> None:
        """Retention: the newest updates stay, older ones leave the store with the next commit."""
        if update in self._updates:
            return
        self._updates.append(update)
        while len(self._updates) > self._core.limits.updates_kept + self.parts - 1:
            self.retire.append(self._updates.pop(0))

    def put_back(
        self,
        objects: dict[bytes, bytes],
        retire: tuple[bytes, ...],
        links: tuple[tuple[str, int, bytes], ...],
        prune: tuple[tuple[str, int], ...],
    ) -> None:
        """A commit did not happen: its contents go into the next one."""
        self.objects = {**objects, **self.objects}
        self.retire = [*retire, *self.retire]
        self.links = [*links, *self.links]
        self.prune = [*prune, *self.prune]

    def clear(self) -> None:
        """All that was collected is on its way."""
        self.objects.clear()
        self.retire.clear()
        self.links.clear()
        self.prune.clear()

    def dump(self) -> bytes:
        return pack([self._updates, sorted(self.listed()), list(self._markers.items())])

    def load(self, data: bytes) -> None:
        updates, lists, markers = unpack(data, KEPT_BYTES_MAX)
        self._updates, self._markers = updates, dict(markers)
        self.retire.extend(lists)  # composed afresh with the next head
