"""The rules: what each says, and how one of them is said to be broken."""

from typing import Final

RULES: Final = {
    # Accepted is durable
    "G1a": "what the client was told of, and has not acknowledged, is in the journal afterwards",
    "G1b": "a handler starts only what the journal knows",
    "G1c": "an accepted request is run, unless it was cancelled or a crash interrupted it",
    "G1d": "`welcome` lists every accepted request whose end is not acknowledged",
    "G1e": "a session with an accepted request resumes until its `bye`, or an operator closes it",
    "G1f": "at rest every request was answered, and every accepted one has ended",
    "G1g": "`cancelled` ends only what was to be cancelled, `interrupted` only what a crash hit",
    "G1h": "a server whose log was sealed accepts nothing more",
    "G1i": "there are events only of requests that the client was told are accepted",
    "G1j": "the start of a second attempt is in the journal before it runs",
    "G1k": "only a `bye` or an operator closes a session",
    # Done is durable
    "G2a": "an end that the client saw is in the journal afterwards, until it is acknowledged",
    "G2b": "what has ended is not run again",
    "G2c": "the end of a request never changes",
    "G2d": "`done` says what its handler did: it ran, returned, and gave as many results",
    "G2e": "a result is what the handler gave at that index of that attempt",
    "G2f": "`welcome` lists what has ended as ended, and no attempt older than one seen",
    "G2g": "what the journal has forgotten as acknowledged does not come back",
    # Order
    "G3a": "`n` counts 1, 2, 3 ... and stands for one request",
    "G3b": "`n` is given in the order in which the requests were sent",
    "G3c": "a session's handlers run one at a time in a process",
    "G3d": "a session's requests run in the order of `n`",
    "G3e": "requests end in the order of `n`, but for those cancelled while they waited",
    "G3f": "results come in the order of `n`",
    "G3g": "attempts count from 1, and each crash adds one",
    "G3h": "`welcome` lists requests in the order of `n`",
    "G3i": "no handler outlives its server",
    # One id, one execution
    "G4a": "an id has one `n`",
    "G4b": "a request sent again is answered with the `n` and the state that it has",
    "G4c": "a request starts once in a process, unless the process of its handler died",
    "G4d": "a request runs with the method and the params it was sent with",
    "G4e": "`id_conflict` answers an id with other method or params, and nothing else does",
    "G4f": "a method that must not be run twice is not",
    "G4g": "what was not sent, or was refused, is neither accepted nor run",
    # Resume
    "G5a": "events come without a gap, from the one after the last that the client saw",
    "G5b": "`welcome.seq` is the last event there is",
    "G5c": "results of an attempt come without a gap, and each once in an epoch",
    "G5d": "at its end, the client has every result of a request",
    "G5e": "nothing of an older attempt comes after a newer one",
    "G5f": "a request ends once in an epoch, and nothing of it follows",
    "G5g": "an epoch is of one process; a session is the one asked for, or a new one",
    "G5h": "the number of an event stands for that event in the whole epoch",
    # The connection
    "W1": "a request is refused with a code that the protocol has for that",
    "W2": "no connection ends with a code for an internal or a protocol error",
    "W3": "what is well-formed is not answered with `bad_frame`",
    "W4": "a frame has the fields that the protocol gives it",
}
"""By guarantee of the design (G1 to G5); W is the wire protocol."""


class Broken(Exception):
    """A rule is broken; the message says how. `n` and `session` tell where, if that is known."""

    def __init__(self, rule: str, text: str, n: int | None = None) -> None:
        super().__init__(text)
        self.rule = rule
        self.n = n
        self.session: str | None = None
