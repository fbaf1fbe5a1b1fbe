"""Feeds events to one node at a time and executes its effects in order, as the driver does.

One inbox per device. While a commit is under way the device handles nothing else, and its outcome
is handled before anything else; if it fails, the effects behind it are dropped. Training and
merging run inline, their answers come after the virtual seconds that they would take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gossipfl.errors import StoreError
from gossipfl.events import (
    Cancel,
    Commit,
    CutOff,
    DeadlineReached,
    Effect,
    Event,
    FetchHead,
    FetchObject,
    JobFailed,
    JobReady,
    Loaded,
    LoadJob,
    Measure,
    MergeFailed,
    MergeFinished,
    Notice,
    Reckon,
    Reload,
    StartMerge,
    StartTraining,
    Stored,
    StoreFailed,
    SumMask,
    SumUncover,
    TrainingFinished,
)
from gossipfl.groups.heavy import sum_step
from gossipfl.memory import Crash
from gossipfl.objects import digest
from gossipfl.work import local_step, measure, merge, reckon
from sim.checkers import Violation
from sim.device import NodeLike, SimDevice

if TYPE_CHECKING:
    from sim.world import World

INBOX_MAX = 2_048  # events waiting at one device: guess, the driver's inbox is bounded too
SPINS_MAX = 200  # deadlines handled at one instant before the node counts as spinning: guess
CLOCK_ROUNDING_S = 1e-9  # a monotonic deadline and its virtual second differ by less


class Interpreter:
    def __init__(self, world: World) -> None:
        self._world = world
        self._actions: dict[type, Callable[[SimDevice, Any], None]] = {
            FetchHead: world.transport.fetch,
            FetchObject: world.transport.fetch,
            Cancel: lambda device, effect: world.transport.cancel(device, effect.request),
            StartTraining: self._start_training,
            StartMerge: self._start_merge,
            Measure: self._measure,
            Reckon: self._reckon,
            SumMask: self._sum,
            SumUncover: self._sum,
            Commit: self._start_commit,
            Reload: lambda device, _: device.inbox.append(Loaded(device.store.load())),
            LoadJob: self._load_job,
            CutOff: self._cut_off,
            Notice: lambda device, effect: world.notices.append((world.now, device, effect)),
        }

    def deliver(self, device: SimDevice, event: Event) -> None:
        """Puts an event into a device's inbox and lets it work. Lost if the device is down."""
        if device.node is None:
            return
        if device.asleep:
            device.frozen.append(lambda: self.deliver(device, event))
            return
        if len(device.inbox) >= INBOX_MAX:
            raise Violation(f"device {device.index}: {INBOX_MAX} events wait in its inbox")
        device.inbox.append(event)
        self._pump(device)

    def wake(self, device: SimDevice) -> None:
        """What came while it was suspended is handled now, and its deadline counts again."""
        waiting, device.frozen = device.frozen, []
        for action in waiting:
            action()
        self._pump(device)

    def _pump(self, device: SimDevice) -> None:
        if device.pumping or device.asleep:
            return
        device.pumping = True
        try:
            while device.node is not None and not device.busy:
                if device.pending:
                    self._execute(device, device.pending.popleft())
                elif device.answers:
                    self._handle(device, device.node, device.answers.popleft())
                elif device.inbox:
                    self._handle(device, device.node, device.inbox.popleft())
                else:
                    break
        finally:
            device.pumping = False
        if device.node is not None and not device.busy:
            self._set_alarm(device, device.node)

    def _handle(self, device: SimDevice, node: NodeLike, event: Event) -> None:
        world = self._world
        device.now = max(device.now, device.clock.monotonic(world.now))
        world.trace.add(world.now, device.index, event)
        for on_event in world.hooks.before(event):
            on_event(device, event)
        effects = node.handle(event, device.now)
        if device.adversary is not None:
            effects = device.adversary.effects(device, effects)
        for on_effects in world.hooks.after(event, effects):
            on_effects(device, event, effects)
        device.pending.extend(effects)
        version = node.shelf.version
        if version != device.shelf_version:
            device.shelf_version = version
            world.transport.head_changed(device)

    # --- the one deadline -------------------------------------------------------------------

    def _set_alarm(self, device: SimDevice, node: NodeLike) -> None:
        """Pulls the node's deadline; an alarm that is early enough already stays."""
        world, deadline = self._world, node.deadline
        if deadline == math.inf:
            return
        when = max(device.clock.virtual(deadline), world.now)
        if device.wake_at is not None and device.wake_at <= when:
            return
        device.wake_at = when
        world.after(when - world.now, device, self._alarm, device, when)

    def _alarm(self, device: SimDevice, when: float) -> None:
        node = device.node
        if node is None or device.wake_at != when:
            return
        device.wake_at = None
        if device.busy or device.asleep:
            return  # `_pump` sets it again when the commit is done, or when it wakes
        world = self._world
        if device.clock.virtual(node.deadline) > world.now + CLOCK_ROUNDING_S:
            self._set_alarm(device, node)
            return
        # Conversion between clocks rounds: never tell the node of an instant before its deadline.
        device.now = max(device.now, node.deadline)
        device.spins = device.spins + 1 if device.instant == world.now else 0
        device.instant = world.now
        if device.spins > SPINS_MAX:
            raise Violation(f"device {device.index}: its deadline {node.deadline} does not move on")
        self.deliver(device, DeadlineReached(device.clock.wall(world.now)))

    # --- effects ----------------------------------------------------------------------------

    def _execute(self, device: SimDevice, effect: Effect) -> None:
        self._world.trace.add(self._world.now, device.index, effect)
        self._actions[type(effect)](device, effect)

    def _start_training(self, device: SimDevice, effect: StartTraining) -> None:
        costs = self._world.options.costs
        seconds = costs.train_s_per_example * device.examples * effect.training.epochs
        self._later(device, seconds, self._train(device, effect))

    def _start_merge(self, device: SimDevice, effect: StartMerge) -> None:
        seconds = self._world.options.costs.merge_s_per_model * (len(effect.received) + 1)
        self._later(device, seconds, _fixed(merge(effect, device.trainer)))

    def _measure(self, device: SimDevice, effect: Measure) -> None:
        seconds = self._world.options.costs.merge_s_per_model
        self._later(device, seconds, measure(effect, device.trainer))

    def _reckon(self, device: SimDevice, effect: Reckon) -> None:
        self._later(device, self._world.options.costs.merge_s_per_model, reckon(effect))

    def _sum(self, device: SimDevice, effect: SumMask | SumUncover) -> None:
        self._later(device, self._world.options.costs.merge_s_per_model, sum_step(effect))

    def _start_commit(self, device: SimDevice, effect: Commit) -> None:
        seconds = self._world.options.costs.commit_s
        device.busy = seconds > 0.0
        if device.busy:
            self._world.after(seconds, device, self._commit, device, effect)
        else:
            self._commit(device, effect)

    def _cut_off(self, device: SimDevice, effect: CutOff) -> None:
        device.cut.add(effect.tls_key)
        self._world.transport.close(device, effect.tls_key, "cut off")

    def _later(self, device: SimDevice, seconds: float, event: Event) -> None:
        self._world.after(seconds * device.slowness, device, self.deliver, device, event)

    @staticmethod
    def _train(device: SimDevice, effect: StartTraining) -> Event:
        if device.adversary is not None:
            return device.adversary.train(device, effect)
        answer = local_step(effect, device.trainer, device.random.randbytes)
        if isinstance(answer, TrainingFinished):
            answer.model.vector.flags.writeable = False
            device.last_step = (effect.base, answer.model.vector)
        return answer

    def _load_job(self, device: SimDevice, effect: LoadJob) -> None:
        if (effect.bundle, effect.data) == (device.job.bundle, device.job.data):
            trainer = device.trainer
            answer: Event = JobReady(effect.bundle, trainer.layout, trainer.initial)
        else:
            answer = JobFailed(effect.bundle, "not the simulated bundle of this device")
        self._later(device, self._world.options.costs.load_job_s, answer)

    def _commit(self, device: SimDevice, effect: Commit) -> None:
        device.busy = False
        try:
            device.store.commit(effect.batch)
        except Crash:
            self._note_commit(device, effect)
            self._world.crash(device, self._world.options.costs.restart_s)
            return
        except StoreError as error:
            device.pending.clear()
            device.answers.append(StoreFailed(effect.commit, str(error)))
        else:
            device.answers.append(Stored(effect.commit))
        self._note_commit(device, effect)
        self._pump(device)

    def _note_commit(self, device: SimDevice, effect: Commit) -> None:
        done = is_durable(device, effect)
        if done:
            device.durable.update(name for name, _ in effect.batch.objects)
            for envelope in (effect.batch.head, effect.batch.receipt):
                if envelope is not None:
                    device.durable.add(digest(envelope))
        for on_commit in self._world.hooks.on_commit:
            on_commit(device, effect.batch, done)


def _fixed(answer: MergeFinished | MergeFailed) -> Event:
    """Nobody writes to a model from now on: it is handed about, and its digest is taken once."""
    if isinstance(answer, MergeFinished):
        answer.merge.parameters.flags.writeable = False
    return answer


def is_durable(device: SimDevice, effect: Commit) -> bool:
    """Whether the batch was written: after a doubtful commit only the disk knows, and the world
    may look at it."""
    snapshot, batch = device.store.load(), effect.batch
    if batch.head is not None:
        return snapshot.head == batch.head
    if batch.receipt is not None:
        return snapshot.receipt == batch.receipt
    return all(snapshot.documents.get(name) == data for name, data in batch.documents.items())
