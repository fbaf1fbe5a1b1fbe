"""The codes GF0 to GF7: devices, their fleet and the command."""

from __future__ import annotations

from gossipfl.codes.entry import ErrorEntry, Exit

DEVICE: dict[str, ErrorEntry] = {
    "GF001": ErrorEntry(
        "a bug in gossipfl",
        "please report it: run the command again with -v and send all it prints, with the output "
        "of `gossipfl --version`; it shows file names of this machine, no keys and no data",
        Exit.BUG,
    ),
    "GF100": ErrorEntry(
        "the command was not understood",
        "`gossipfl --help` lists the verbs, `gossipfl VERB --help` explains one",
        Exit.USAGE,
    ),
    "GF101": ErrorEntry(
        "unknown setting",
        "correct the key at the place named; `gossipfl init` writes a commented file with all keys",
        Exit.CONFIG,
    ),
    "GF102": ErrorEntry(
        "setting has a wrong value",
        "the message names the file, the line, what was found and what is allowed",
        Exit.CONFIG,
    ),
    "GF103": ErrorEntry(
        "config file cannot be read",
        "check the path and its permissions; `gossipfl init --state DIR` makes a new one",
        Exit.CONFIG,
    ),
    "GF104": ErrorEntry(
        "the demo cannot use its folder",
        "stop the other demo, or start this one in another folder: gossipfl demo --folder DIR",
        Exit.USAGE,
    ),
    "GF105": ErrorEntry(
        "no free ports on this machine",
        "see with `ss -ltn` what listens there; close it, or try again later",
        Exit.CONFIG,
    ),
    "GF106": ErrorEntry(
        "this needs an extra that is not installed",
        "install it: pip install 'gossipfl[demo]', or use script/demo, which does",
        Exit.USAGE,
    ),
    "GF107": ErrorEntry(
        "a device of the demo did not come up",
        "the end of its log is above; the whole log is in the folder of that device",
        Exit.NO,
    ),
    "GF109": ErrorEntry(
        "the systemd unit cannot be put in its place or taken away",
        "run it as root on a machine with systemd, with gossipfl installed in /opt or /usr",
        Exit.CONFIG,
    ),
    "GF108": ErrorEntry(
        "the scenario file cannot be used",
        "correct the place named; docs/reference/scenarios.md says what may stand where",
        Exit.CONFIG,
    ),
    "GF201": ErrorEntry(
        "no identity here",
        "enrol this device first: `gossipfl join LINE`, with a line that `gossipfl invite` prints",
        Exit.IDENTITY,
    ),
    "GF202": ErrorEntry(
        "identity here already",
        "choose another folder, or give up the old identity with `gossipfl join --replace`",
        Exit.IDENTITY,
    ),
    "GF203": ErrorEntry(
        "secret file is open to others",
        "make it readable by its owner alone (chmod 600), and think of who may have read it",
        Exit.IDENTITY,
    ),
    "GF204": ErrorEntry(
        "not an invitation",
        "copy the whole line that `gossipfl invite` printed: it begins with gfl1:",
        Exit.USAGE,
    ),
    "GF205": ErrorEntry(
        "not the issuer of this invitation",
        "nothing was sent that could be misused; check the address, and that the line is your own",
        Exit.IDENTITY,
    ),
    "GF206": ErrorEntry(
        "invitation unknown",
        "ask for a new line: it may have been made for another issuer of the fleet, or mistyped",
        Exit.IDENTITY,
    ),
    "GF207": ErrorEntry(
        "invitation has expired",
        "ask for a new line, or compare the issuer's clock with yours if this one is fresh",
        Exit.IDENTITY,
    ),
    "GF208": ErrorEntry(
        "invitation is used up",
        "ask for a new line; `gossipfl fleet status` shows who has joined with this one",
        Exit.IDENTITY,
    ),
    "GF209": ErrorEntry(
        "issuer cannot be reached",
        "check that `gossipfl fleet issuer run` is running there and that the port is open; "
        "--host HOST:PORT tries another address",
        Exit.UNREACHABLE,
    ),
    "GF210": ErrorEntry(
        "a clock or a certificate is out of date",
        "compare the clocks of this machine and of the issuer (`date -u`), then try again",
        Exit.IDENTITY,
    ),
    "GF211": ErrorEntry(
        "identity files are damaged or do not belong together",
        "restore the folder from a backup, or enrol anew into another folder",
        Exit.IDENTITY,
    ),
    "GF212": ErrorEntry(
        "folder is not what is needed here",
        "the message names what is there; `gossipfl fleet init DIR` makes a new fleet",
        Exit.USAGE,
    ),
    "GF213": ErrorEntry(
        "enrolment failed its checks",
        "nothing was written; use one version on both sides, and report this if it comes back",
        Exit.IDENTITY,
    ),
    "GF214": ErrorEntry(
        "issuer is busy",
        "try again in a minute; the invitation has not been used",
        Exit.UNREACHABLE,
    ),
    "GF215": ErrorEntry(
        "file cannot be read or written",
        "check the path, its owner and mode, and the space on the disk",
        Exit.CONFIG,
    ),
    "GF301": ErrorEntry(
        "TLS certificate or key cannot be used",
        "run `gossipfl join` again for new ones; the three files must belong together",
        Exit.IDENTITY,
    ),
    "GF302": ErrorEntry(
        "cannot listen for peers",
        "choose another address or port in the config, or stop what uses it",
        Exit.CONFIG,
    ),
    "GF303": ErrorEntry(
        "cannot listen for monitors",
        "choose another local port for /healthz and /metrics in the config, or leave it out",
        Exit.CONFIG,
    ),
    "GF311": ErrorEntry(
        "the agent does not answer",
        "start it: `gossipfl run --config FILE`, or `systemctl start gossipfl-agent`",
        Exit.UNREACHABLE,
    ),
    "GF312": ErrorEntry(
        "the agent refused the request",
        "use one version of the command and of the agent, then restart the agent",
        Exit.UNREACHABLE,
    ),
    "GF313": ErrorEntry(
        "cannot open the local socket",
        "its path may have at most 107 bytes; set local.socket to a shorter one",
        Exit.CONFIG,
    ),
    "GF401": ErrorEntry(
        "bundle refused",
        "get the bundle again from whoever signed it, or ask its author; nothing of it was run",
        Exit.BUNDLE,
    ),
    "GF402": ErrorEntry(
        "model cannot become a bundle",
        "the message names the layer or operator; docs/how-to/bundle.md lists what to use instead",
        Exit.NO,
    ),
    "GF403": ErrorEntry(
        "bundle file cannot be read or written",
        "check the path, its permissions and the space on the disk",
        Exit.USAGE,
    ),
    "GF404": ErrorEntry(
        "this needs the authoring extra",
        "install it on a workstation, not on a device: pip install 'gossipfl[author]'",
        Exit.USAGE,
    ),
    "GF405": ErrorEntry(
        "data do not fit the bundle",
        "compare the shapes, types and labels of the data with `gossipfl bundle check`",
        Exit.CONFIG,
    ),
    "GF406": ErrorEntry(
        "training failed",
        "lower the learning rate or scale the inputs; the device keeps its model",
        Exit.NO,
    ),
    "GF407": ErrorEntry(
        "data cannot be read",
        "the message names the file and the row; docs/how-to/data.md lists what is read",
        Exit.CONFIG,
    ),
    "GF408": ErrorEntry(
        "no model yet",
        "wait for the first merge: `gossipfl status` says what the device waits for",
        Exit.NO,
    ),
    "GF501": ErrorEntry(
        "state folder cannot be used",
        "check the space, the owner and the mode (0700) of the folder, then start again",
        Exit.CONFIG,
    ),
    "GF502": ErrorEntry(
        "state was written by a newer version",
        "install the version that wrote it, or a later one; nothing was changed",
        Exit.CONFIG,
    ),
    "GF503": ErrorEntry(
        "state folder is in use",
        "stop the other agent first; two processes with one key would accuse each other",
        Exit.CONFIG,
    ),
    "GF504": ErrorEntry(
        "state is damaged",
        "restore the folder from a backup, or move it away and enrol this device again",
        Exit.CONFIG,
    ),
    "GF601": ErrorEntry(
        "no privacy plan or audit can be made of this",
        "the message names the value and what is allowed; docs/how-to/privacy.md has examples",
        Exit.USAGE,
    ),
    "GF701": ErrorEntry(
        "policy cannot be issued",
        "the message names the value and what is allowed; `gossipfl policy show` prints the last",
        Exit.USAGE,
    ),
    "GF702": ErrorEntry(
        "not a valid policy or revocation",
        "get the file again from whoever issued it; nothing of it was used",
        Exit.IDENTITY,
    ),
    "GF703": ErrorEntry(
        "nothing to release",
        "`gossipfl quarantine list` says who is shut out, why, and for how long",
        Exit.USAGE,
    ),
}
