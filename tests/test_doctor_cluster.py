"""Whether a named cluster answers, and where its token is, without Ray."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from strata.doctor_check import OK, WARN
from strata.doctor_cluster import check_cluster, check_token, host_and_port


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("environment", [{}, {"RAY_ADDRESS": ""}, {"RAY_ADDRESS": "local"}])
def test_without_an_address_nothing_is_asked(environment: dict[str, str]):
    assert check_cluster(environment).status == OK


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_a_cluster_that_answers(listening: int, form: str):
    check = check_cluster({"RAY_ADDRESS": form.format(listening)})
    assert (check.status, check.found) == (OK, f"127.0.0.1:{listening} answers")


def test_a_cluster_that_does_not_answer(silent: int):
    check = check_cluster({"RAY_ADDRESS": f"127.0.0.1:{silent}"})
    assert check.status == WARN
    assert f"127.0.0.1:{silent}" in check.found
    assert "ray start --head" in check.fix


def test_auto_is_the_cluster_that_was_started_here(listening: int, tmp_path: Path):
    current = tmp_path / "ray_current_cluster"
    check = check_cluster({"RAY_ADDRESS": "auto"}, current)
    assert (check.status, "no cluster was started" in check.found) == (WARN, True)
    current.write_text(f"127.0.0.1:{listening}\n")
    assert check_cluster({"RAY_ADDRESS": "auto"}, current).status == OK


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("head:6380", ("head", 6380)),
        ("head", ("head", 6379)),
        ("ray://head", ("head", 10001)),
        ("https://head", ("head", 443)),
        ("[::1]:7000", ("::1", 7000)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]):
    assert host_and_port(address) == expected


@pytest.mark.parametrize("address", ["head:none", "://", ":6379"])
def test_addresses_that_are_none_warn(address: str):
    assert check_cluster({"RAY_ADDRESS": address}).status == WARN


def test_where_the_token_is(tmp_path: Path):
    assert "in RAY_AUTH_TOKEN" in check_token({"RAY_AUTH_TOKEN": "secret"}, tmp_path).found
    (tmp_path / "token").write_text("secret")
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"), "RAY_ADDRESS": "head"}
    assert check_token(named, tmp_path).status == OK
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    check = check_token({"RAY_ADDRESS": "head"}, tmp_path)
    assert (check.status, check.found) == (OK, "in ~/.ray/auth_token")


def test_no_token_says_how_to_get_one(tmp_path: Path):
    for environment, status in (({}, OK), ({"RAY_ADDRESS": "head:6379"}, WARN)):
        check = check_token(environment, tmp_path)
        assert (check.status, "ray get-auth-token" in check.fix) == (status, True)
    missing = {"RAY_ADDRESS": "head", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    assert check_token(missing, tmp_path).status == WARN
    assert check_token({"RAY_ADDRESS": "head", "RAY_AUTH_MODE": "disabled"}, tmp_path).status == OK


def test_the_token_is_never_shown(tmp_path: Path):
    check = check_token({"RAY_AUTH_TOKEN": "hunter2"}, tmp_path)
    assert "hunter2" not in check.found + check.fix
