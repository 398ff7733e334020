"""How servers made for a test greet: a new session, generous limits."""

from protocol import frames as wire

WELCOME = wire.Welcome(
    session="s",
    resumed=False,
    epoch="e",
    seq=0,
    requests=[],
    expires_at=0,
    limits=wire.Limits(64, 2**20, 2**20, 60),
    server=wire.ServerInfo("fake", "0"),
)
