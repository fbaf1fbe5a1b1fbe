"""Which articles the log has evidence for: one table, each row with what it does not show.

It says "supports" and never "compliant": whether a duty is met is for whoever has it. Paraphrased
from Regulation (EU) 2016/679 (GDPR), 45 CFR 164.312 and 164.316 (HIPAA), Regulation (EU) 2024/1689
(AI Act) and NIST SP 800-226.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.audit.entries import EntryKind

_K = EntryKind
EVERY_KIND = tuple(EntryKind)
GDPR, HIPAA, AI_ACT, NIST = "GDPR", "HIPAA", "EU AI Act", "NIST SP 800-226"


@dataclass(frozen=True, slots=True)
class Duty:
    """One article: what it asks for, what the log has for it, and what is left to whoever has the
    duty. `of_privacy`: there is nothing to claim while models are published without noise."""

    framework: str
    article: str
    asks: str
    supports: str
    limits: str
    kinds: tuple[EntryKind, ...]
    of_privacy: bool = False


DUTIES: tuple[Duty, ...] = (
    Duty(
        GDPR,
        "Art. 17",
        "erasure of personal data on request",
        "Entries hold salted commitments. An erasure deletes a subject's salt and payloads, is "
        "logged with the places that it emptied, and every proof over the log holds as before.",
        "A model that learned from the data is not unlearned. Peers' copies end by retention, "
        "exports that were taken earlier by their holders.",
        (_K.ERASURE,),
    ),
    Duty(
        GDPR,
        "Art. 25",
        "data protection by design and by default",
        "Policies fix, signed, what devices add before they publish; receipts show that models "
        "were exchanged; the protocol has no message that carries raw data.",
        "Without a privacy policy models carry no noise, and a model may tell something of the "
        "data that it learned from. The privacy statement below says which holds.",
        (_K.POLICY, _K.RECEIPT),
    ),
    Duty(
        GDPR,
        "Art. 30",
        "records of processing activities",
        "Each merge of each device is recorded with its time, rule and outcome, and each policy "
        "with the job and settings that it ordered.",
        "Purposes, categories of people, recipients and time limits are for the controller to "
        "write down.",
        (_K.RECEIPT, _K.POLICY, _K.UPDATE, _K.MODEL),
    ),
    Duty(
        GDPR,
        "Art. 32",
        "security of processing",
        "Admissions bind each device to its keys, revocations and proofs of misconduct shut it "
        "out, alarms say what the hub noticed; all of it signed, ordered and tamper-evident.",
        "Devices' own disks, their surroundings and the people who run them are not seen here.",
        (_K.MEMBER, _K.REVOCATION, _K.EVIDENCE, _K.ALARM),
    ),
    Duty(
        GDPR,
        "Art. 33",
        "notification of a breach, with what happened and when",
        "Alarms, proofs and revocations have places and times in one order that nobody can change "
        "unseen.",
        "Whether something was a breach of personal data, and the 72 hours, are for the "
        "controller to judge. Times are the hub's; their order is proven, their truth is not.",
        (_K.ALARM, _K.EVIDENCE, _K.REVOCATION),
    ),
    Duty(
        GDPR,
        "Art. 35",
        "data protection impact assessment",
        "The policies in force, their privacy terms and what they allow to be learned of one "
        "device or example are on record, with the privacy statement below.",
        "An assessment also weighs necessity and risks to people; that is not in a log.",
        (_K.POLICY,),
    ),
    Duty(
        HIPAA,
        "164.312(a)",
        "access control: only those who were granted access",
        "Every admission, revocation and change of an account that the hub recorded.",
        "Emergency access, automatic logoff and encryption of disks are the operator's.",
        (_K.MEMBER, _K.REVOCATION, _K.ACCOUNT),
    ),
    Duty(
        HIPAA,
        "164.312(b)",
        "audit controls: record and examine activity",
        "Everything that the hub recorded, in one order, under signed checkpoints.",
        "Activity on devices outside of training and merging is not recorded here.",
        EVERY_KIND,
    ),
    Duty(
        HIPAA,
        "164.312(c)",
        "integrity: protection from improper alteration",
        "Each receipt is signed by its device and chained to the one before; the log's root "
        "covers every entry, and devices witness its checkpoints.",
        "That the hub shows all others the same log is for witnesses' signatures to prove: name "
        "some to gossipfl audit verify.",
        (_K.RECEIPT, _K.EVIDENCE),
    ),
    Duty(
        HIPAA,
        "164.312(d)",
        "person or entity authentication",
        "Admissions name the key of each device as an issuer signed it; logins of people where "
        "the hub recorded them.",
        "Who holds a device or a password is not known to a log.",
        (_K.MEMBER, _K.LOGIN),
    ),
    Duty(
        HIPAA,
        "164.312(e)",
        "transmission security",
        "Each admission binds a device to its TLS key; peers speak TLS 1.3 with certificates on "
        "both sides and nothing else, so who is in the log is who can be spoken to.",
        "The connections themselves leave no entries.",
        (_K.MEMBER,),
    ),
    Duty(
        HIPAA,
        "164.316(b)(2)",
        "documentation: kept for six years, available, updated",
        "Policies, exports and reports on record since the first of them. The hub deletes no "
        "entry that has its place.",
        "Six years need backups of the hub's database; they are the operator's.",
        (_K.POLICY, _K.EXPORT, _K.REPORT),
    ),
    Duty(
        AI_ACT,
        "Art. 12",
        "automatic recording of events over the lifetime of a high-risk system",
        "Training is recorded by itself: policies, merges, refusals, misconduct, alarms and "
        "versions of the model.",
        "Use of the model on devices (inference) is not recorded. Whether a system is high-risk "
        "is for its provider to say.",
        (_K.RECEIPT, _K.POLICY, _K.EVIDENCE, _K.ALARM, _K.MODEL),
    ),
    Duty(
        AI_ACT,
        "Art. 19",
        "providers keep the automatic logs, at least six months",
        "The log from its first entry to its last, with their times.",
        "It begins when the hub began. Keeping it is a matter of backups.",
        EVERY_KIND,
    ),
    Duty(
        AI_ACT,
        "Art. 26(6)",
        "deployers keep the automatic logs, at least six months",
        "The log from its first entry to its last; an export of it needs no hub to be checked.",
        "Logs of use on devices are the deployer's own.",
        EVERY_KIND,
    ),
    Duty(
        NIST,
        "privacy parameter and unit",
        "epsilon, delta, and whom they protect",
        "Policies fix them, signed; releases are counted from receipts. See the privacy statement.",
        "What a device spends beyond what receipts show is in its own ledger.",
        (_K.POLICY, _K.RECEIPT),
        of_privacy=True,
    ),
    Duty(
        NIST,
        "algorithms and their implementation",
        "mechanism, accounting over all releases, random numbers, floating point",
        "The privacy statement names mechanism, accountant and generator; noise is rounded to an "
        "integer grid. Policies fix clip and noise.",
        "A log cannot show that a device runs the code that it says. gossipfl privacy audit "
        "measures what leaks.",
        (_K.POLICY,),
        of_privacy=True,
    ),
    Duty(
        NIST,
        "trust model",
        "who has to be trusted with what",
        "Local model: noise is added on the device before anybody sees anything; admissions say "
        "who could see what was published.",
        "Side channels on a device, and what leaves it by other ways.",
        (_K.POLICY, _K.MEMBER),
        of_privacy=True,
    ),
    Duty(
        NIST,
        "security and access control",
        "protection of the data below the privacy mechanism",
        "Admissions, revocations, and proofs of misconduct.",
        "Raw data lie on devices, whose protection is the owner's.",
        (_K.MEMBER, _K.REVOCATION, _K.EVIDENCE),
    ),
)
