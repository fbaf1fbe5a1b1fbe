"""The codes GF8: the hub, its API, its users and star mode."""

from __future__ import annotations

from gossipfl.codes.entry import ErrorEntry, Exit

# 801 to 819: store, log, service. 820 and up: API, users, star mode.
HUB: dict[str, ErrorEntry] = {
    "GF801": ErrorEntry(
        "database cannot be used",
        "check that the server runs, the DSN, the password file and the rights of its user",
        Exit.CONFIG,
    ),
    "GF802": ErrorEntry(
        "log belongs to another hub",
        "start the hub with the keys that signed it, or with an empty database",
        Exit.IDENTITY,
    ),
    "GF803": ErrorEntry(
        "log is damaged",
        "restore the database from a backup; nothing was written to it",
        Exit.CONFIG,
    ),
    "GF804": ErrorEntry(
        "folder is no hub's",
        "enrol it with a line of `gossipfl invite --role hub`",
        Exit.IDENTITY,
    ),
    "GF805": ErrorEntry(
        "API without TLS",
        "set api.certificate and api.key, or let it listen on 127.0.0.1 behind a proxy",
        Exit.CONFIG,
    ),
    "GF806": ErrorEntry(
        "the hub does not answer, or no hub does",
        "check its address, that it runs, and --ca or --hub-ca if no public CA signed its "
        "certificate",
        Exit.UNREACHABLE,
    ),
    "GF811": ErrorEntry(
        "alerts cannot be sent as the settings say",
        "the cause names the setting of [alerts]; `gossipfl hub alerts test` tries all of them",
        Exit.CONFIG,
    ),
    "GF812": ErrorEntry(
        "a test alert did not arrive",
        "the cause says what the receiver answered; then run `gossipfl hub alerts test` again",
        Exit.UNREACHABLE,
    ),
    "GF821": ErrorEntry(
        "not logged in, or the token is no longer valid",
        "get a token (POST /api/v1/auth/token), or refresh yours, and send it as a Bearer token",
        Exit.IDENTITY,
    ),
    "GF822": ErrorEntry(
        "not allowed for this role",
        "ask an operator of the hub; the reference of the API lists who may call what",
        Exit.IDENTITY,
    ),
    "GF823": ErrorEntry(
        "there is no such thing at the hub",
        "/openapi.json lists all paths; ids are as the lists of the API show them",
        Exit.NO,
    ),
    "GF824": ErrorEntry(
        "the request does not make sense",
        "the detail names the field; /openapi.json has the types of all requests",
        Exit.USAGE,
    ),
    "GF825": ErrorEntry(
        "the body is too large",
        "nothing of it was used; /openapi.json says what a route takes",
        Exit.USAGE,
    ),
    "GF826": ErrorEntry(
        "the body is of a kind that is not taken here",
        "send it uncompressed and with the Content-Type that /openapi.json names",
        Exit.USAGE,
    ),
    "GF827": ErrorEntry(
        "too many requests",
        "wait as long as Retry-After says, then send fewer",
        Exit.UNREACHABLE,
    ),
    "GF828": ErrorEntry(
        "the hub is busy or cannot write",
        "wait as long as Retry-After says; nothing was lost that had been acknowledged",
        Exit.UNREACHABLE,
    ),
    "GF829": ErrorEntry(
        "it contradicts what is there already",
        "look at what is there now, then decide whether to ask again",
        Exit.NO,
    ),
    "GF830": ErrorEntry(
        "wrong name or password",
        "after five failures wait half a minute; `gossipfl user login-link NAME` makes a new link",
        Exit.IDENTITY,
    ),
    "GF831": ErrorEntry(
        "not a good password",
        "12 to 256 characters, not the user's name and not one character over and over; a "
        "sentence does well",
        Exit.USAGE,
    ),
    "GF832": ErrorEntry(
        "this user cannot be made",
        "`gossipfl user list` shows who is there; the message says what is wrong",
        Exit.USAGE,
    ),
    "GF833": ErrorEntry(
        "no such user, or one that must stay",
        "`gossipfl user list` shows who is there; make another operator before the last one goes",
        Exit.NO,
    ),
    "GF834": ErrorEntry(
        "no operator can log in, and others can reach the API",
        "make one: gossipfl user add NAME --role operator --password-file FILE --config hub.toml",
        Exit.CONFIG,
    ),
    "GF840": ErrorEntry(
        "not a registered client",
        "register first (POST /api/v1/clients/register) with the code of an invitation, which an "
        "operator of the hub makes",
        Exit.IDENTITY,
    ),
    "GF841": ErrorEntry(
        "what was signed was refused",
        "the detail begins with the fault; fetch the training configuration again and sign anew",
        Exit.NO,
    ),
    "GF842": ErrorEntry(
        "blocked by an operator",
        "ask whoever runs the hub; the detail says why",
        Exit.IDENTITY,
    ),
    "GF843": ErrorEntry(
        "not selected for this round",
        "nothing is wrong: wait for the next round, the training configuration says when",
        Exit.NO,
    ),
    "GF844": ErrorEntry(
        "this round is over",
        "fetch the training configuration and the global model again, train from those",
        Exit.NO,
    ),
    "GF845": ErrorEntry(
        "the update does not fit the privacy budget",
        "nothing of it was used; GET /api/v1/privacy/budget says what is left and for whom",
        Exit.BUDGET,
    ),
    "GF846": ErrorEntry(
        "the policy or bundle was refused",
        "only what an operator of this fleet signed counts; `gossipfl policy show FILE` says what "
        "is in it",
        Exit.IDENTITY,
    ),
    "GF850": ErrorEntry(
        "nobody of whom this hub holds anything",
        "`gossipfl audit show` and GET /api/v1/clients name who there is; ids have 29 letters and "
        "digits in groups, or 32 digits of hex",
        Exit.NO,
    ),
    "GF851": ErrorEntry(
        "erased before",
        "nothing is left to do; a client that was erased registers with a new key",
        Exit.NO,
    ),
    "GF852": ErrorEntry(
        "this one cannot be erased",
        "a device has to leave the fleet first: gossipfl revoke DEVICE, where the fleet's issuer "
        "is; hubs, issuers and operators are the fleet's own record",
        Exit.NO,
    ),
    "GF853": ErrorEntry(
        "the erasure goes on",
        "it is asked for and is not lost: say the same again, to see how far it is",
        Exit.NO,
    ),
}
