"""A fleet's keys and who gets in: the root, issuers, operators, invitations and enrolment.

Level 4 shell: files, X.509, SQLite and the issuer's service. What peers must agree on (member,
policy and revocation objects) lies in `messages`, `objects` and `membership`; this room makes them.

Each Ed25519 key of the root and of an issuer signs two kinds of things: X.509 certificates (whose
signed bytes begin with 0x30) and protocol envelopes (whose signed bytes begin with "DSSEv1 "), so
neither can be taken for the other.
"""
