"""Who vouches for a bundle: an operator's signature over the manifest, outside the bundle id.

`manifest.sig` is a protocol envelope of type "bundle" whose payload is the manifest;
`manifest.member` is the signer's member object. Whether that member is an operator of this fleet
is for the caller to say (`verify_signer`), since only it knows the fleet's root.
"""

from __future__ import annotations

from collections.abc import Callable

from gossipfl import wire
from gossipfl.bundle.archive import SIGNATURE_BYTES_MAX, Bundle
from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.errors import PeerError
from gossipfl.identity import Signer

TYPE = "bundle"

VerifySigner = Callable[[bytes, bytes], None]
"""(key id, member object): raises PeerError unless that key is an operator's of this fleet."""


def sign(bundle: Bundle, signer: Signer, member: bytes) -> Bundle:
    """The bundle with `signer`'s signature; `member` is the signer's member object."""
    return bundle.signed(wire.seal(TYPE, bundle.manifest_bytes, signer), member)


def signer_of(bundle: Bundle) -> bytes:
    """The key id whose signature over this manifest is right. Raises BundleRefused."""
    if bundle.signature is None or bundle.member is None:
        raise BundleRefused(Reason.UNSIGNED, "manifest.sig or manifest.member is missing")
    try:
        envelope = wire.open_envelope(bundle.signature, TYPE, SIGNATURE_BYTES_MAX)
        if envelope.payload != bundle.manifest_bytes:
            raise BundleRefused(Reason.SIGNATURE, "it signs another manifest")
        wire.check_signature(envelope)
    except PeerError as error:
        raise BundleRefused(Reason.SIGNATURE, str(error)) from error
    return envelope.key_id


def require_signature(bundle: Bundle, verify_signer: VerifySigner) -> bytes:
    """The signer's key id, accepted by `verify_signer`. Raises BundleRefused."""
    key_id = signer_of(bundle)
    if bundle.member is None:
        raise BundleRefused(Reason.UNSIGNED, "manifest.member is missing")
    try:
        verify_signer(key_id, bundle.member)
    except PeerError as error:
        raise BundleRefused(Reason.SIGNER, str(error)) from error
    return key_id
