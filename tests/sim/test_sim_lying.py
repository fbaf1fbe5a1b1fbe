"""What makes a real agent lie: it sees what its node pulled, and shows each asker its own chain."""

from __future__ import annotations

import numpy as np
import pytest

from gossipfl.events import StartMerge, StartTraining
from gossipfl.messages import Head
from gossipfl.node import Node
from gossipfl.shelf import Served
from gossipfl.wire import check_signature, decode, open_envelope
from sim.attacks import attack
from sim.attacks.faces import Faces
from sim.demo.lying import Knowledge, Liar, LyingNode, LyingShelf, LyingTrainer, _asker
from sim.scene import Scene, Setup


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Five devices after three rounds."""
    scene = Scene(3, Setup(devices=5)).start()
    scene.run_rounds(3, 40.0)
    return scene


def node_of(scene: Scene, index: int) -> Node:
    node = scene.devices[index].node
    assert isinstance(node, Node)
    return node


def pubs(scene: Scene) -> list[np.ndarray]:  # type: ignore[type-arg]
    """What the others published last."""
    return [d.last_step[1] for d in scene.devices[1:] if d.last_step is not None]


def test_a_liar_knows_what_its_node_pulled_and_no_more(scene: Scene) -> None:
    node = node_of(scene, 0)
    knowledge = Knowledge(node, scene.devices[0].device, attackers=1)
    base = node.base
    assert base is not None
    alone = knowledge.sight(base, base + 1)
    np.testing.assert_array_equal(alone.honest, [base + 1])
    knowledge.look()
    sight = knowledge.sight(base, base)
    found = {row.tobytes() for row in sight.honest}
    assert found == {pub.tobytes() for pub in pubs(scene)}
    assert sight.copies is not None
    assert len(sight.who) == 4


def test_models_that_were_merged_are_taken_as_steps_from_the_new_base(scene: Scene) -> None:
    node = node_of(scene, 0)
    knowledge = Knowledge(node, scene.devices[0].device, attackers=1)
    before = np.full_like(pubs(scene)[0], 0.5)
    knowledge.on_effect(StartMerge(1, "nna", before, (), 0, None, None, before))
    base = before + 2
    np.testing.assert_allclose(
        np.sort(knowledge.sight(base, base).honest, axis=0),
        np.sort(np.stack(pubs(scene)), axis=0) + 2,
        atol=1e-5,
    )
    knowledge.on_effect(StartTraining(1, base, scene.setup.training, 0))
    assert knowledge.round == 1


def test_its_trainer_publishes_the_lie_and_measures_honestly(scene: Scene) -> None:
    device, node = scene.devices[0], node_of(scene, 0)
    knowledge = Knowledge(node, device.device, attackers=1)
    liar = Liar(attack("sign_flip"), 0, knowledge, device.keys.signer)
    trainer = LyingTrainer(device.trainer, liar)
    base = device.trainer.initial
    own = device.trainer.train(base, scene.setup.training, 5)
    np.testing.assert_array_equal(trainer.train(base, scene.setup.training, 5), -own)
    assert trainer.evaluate(own) == device.trainer.evaluate(own)


def test_each_asker_is_shown_a_chain_that_holds_together_and_contradicts_the_others(
    scene: Scene,
) -> None:
    device, node = scene.devices[0], node_of(scene, 0)
    knowledge = Knowledge(node, device.device, attackers=1)
    liar = Liar(attack("dissensus"), 0, knowledge, device.keys.signer)
    driven = LyingNode(node, liar)
    shelf = LyingShelf(driven.shelf, device.device, liar)
    own = node.shelf.head(None)
    assert own is not None
    liar.faces.published(own.envelope)
    liar.trained(device.trainer.initial, pubs(scene)[0])
    assert shelf.head(None) == own  # nobody asks: the truth

    def shown(asker: int) -> Served:
        token = _asker.set(asker)
        try:
            served = shelf.head(device.device)
            assert served is not None
            return served
        finally:
            _asker.reset(token)

    first, second = shown(1), shown(2)
    assert first == shown(1)
    assert len({own.digest, first.digest, second.digest}) == 3
    heads = []
    for served in (own, first, second):
        envelope = open_envelope(served.envelope, "head", 4096)
        check_signature(envelope)
        heads.append(decode(envelope.payload, Head))
        assert served.digest == own.digest or shelf.object(served.digest) == served.envelope
    assert {head.seq for head in heads} == {heads[0].seq}
    assert len({head.update.digest for head in heads if head.update}) == 3
    assert shelf.object(first.update_digest or b"") == first.update


def test_a_chain_that_is_first_shown_late_links_back_as_far_as_heads_are_kept(
    scene: Scene,
) -> None:
    signer = scene.devices[0].keys.signer
    vector = scene.devices[0].trainer.initial
    own = node_of(scene, 0).shelf.head(None)
    assert own is not None
    head = decode(open_envelope(own.envelope, "head", 4096).payload, Head)
    from dataclasses import replace

    import msgspec

    from gossipfl.objects import digest
    from gossipfl.wire import encode, seal

    faces = Faces(signer, lambda face, round_: vector + face)
    prev = head.prev
    newest = own
    for seq in range(head.seq, head.seq + 5):
        envelope = seal("head", encode(msgspec.structs.replace(head, seq=seq, prev=prev)), signer)
        prev = digest(envelope)
        faces.published(envelope)
        newest = replace(own, envelope=envelope, digest=prev)
    shown = faces.shown(newest, 7)
    walked = 0
    at: bytes | None = shown.digest
    while at is not None and (data := faces.object(at)) is not None:
        at = decode(open_envelope(data, "head", 4096).payload, Head).prev
        walked += 1
    assert walked == 5
    assert at == head.prev
    assert faces.shown(newest, None) == newest
