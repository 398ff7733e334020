"""The list of methods, as HTTP gives it to who has a token."""

import pytest

from tests.integration.test_http import ask
from tests.server_process import ServerProcess, token


def names(server: ServerProcess, scope: str | None) -> list[str]:
    status, body, headers = ask(server, "/methods", Authorization=f"Bearer {token(scope=scope)}")
    assert (status, headers["cache-control"]) == (200, "no-store")
    return [method["name"] for method in body["methods"]]


def test_a_token_is_told_the_methods_it_may_call(server: ServerProcess) -> None:
    assert "echo" in names(server, None)
    assert "secret" not in names(server, None)
    assert "secret" in names(server, "other admin")


def test_a_method_comes_with_its_params(server: ServerProcess) -> None:
    _, body, _ = ask(server, "/methods", Authorization=f"Bearer {token()}")
    (words,) = [method for method in body["methods"] if method["name"] == "words"]
    params = words["params"]["$defs"]["Params"]
    assert words["stream"]
    assert params["required"] == ["text"]
    assert params["properties"]["text"] == {"type": "string"}
    assert params["properties"]["delay"]["default"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": f"Bearer {token(ttl_seconds=-60)}"},
    ],
    ids=["none", "no token", "a password", "expired"],
)
def test_who_has_no_token_is_told_no_method(server: ServerProcess, headers: dict[str, str]) -> None:
    status, body, fields = ask(server, "/methods", **headers)
    assert (status, list(body)) == (401, ["error"])
    assert fields["www-authenticate"].startswith("Bearer ")
