"""Who may: the application's callable, tokens, and where a change may come from."""

from __future__ import annotations

import asyncio
import base64
import inspect
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from asyncjobs import InvalidOption, JobHandle, Runner
from asyncjobs.testing import ManualClock
from asyncjobs.web import job_token

from .support import ORIGIN, SAME_ORIGIN, SECRET, Stream, application, bearer, client, error_of

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"
OTHER_SECRET = b"\x00another secret of the tests \xff\xfe\xfd"


@pytest.fixture
async def job(runner: Runner) -> JobHandle[int]:
    @runner.task
    async def double(number: int) -> int:
        return 2 * number

    return await double.options(delay=60).enqueue(1)


async def ask(
    runner: Runner, path: str, method: str = "GET", *, options: Any = None, **how: Any
) -> httpx.Response:
    app = application(runner, **(options or {"secret": SECRET}))
    async with client(app) as asking:
        return await asking.request(method, path, **how)


# Tokens


async def test_token_lets_one_follow_one_job_by_header_and_by_query(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    token = job_token(SECRET, job.id, clock=clock)
    by_header = await ask(runner, f"/jobs/{job.id}", headers=bearer(token))
    by_query = await ask(runner, f"/jobs/{job.id}?token={token}")
    result = await ask(runner, f"/jobs/{job.id}/result?token={token}")

    assert (by_header.status_code, by_query.status_code) == (200, 200)
    assert by_header.json()["id"] == by_query.json()["id"] == job.id
    assert error_of(result) == (409, "not_finished")
    async with Stream(
        application(runner, secret=SECRET), f"/jobs/{job.id}/events?token={token}"
    ) as stream:
        assert stream.status == 200


async def test_token_is_for_one_job_alone(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    token = job_token(SECRET, job.id, clock=clock, actions=["status", "result", "cancel"])
    other = await runner.tasks[(await job.job()).task].options(delay=60).enqueue(2)
    for path in ("", "/events", "/result"):
        answer = await ask(runner, f"/jobs/{other.id}{path}?token={token}")
        assert error_of(answer) == (403, "foreign_token")
    answer = await ask(runner, f"/jobs/{other.id}/cancel", "POST", headers=bearer(token))
    assert error_of(answer) == (403, "foreign_token")
    answer = await ask(runner, "/jobs/openapi.json", headers=bearer(token))
    assert error_of(answer) == (403, "foreign_token")
    assert (await other.job()).state == "queued"


async def test_token_for_a_job_that_is_gone_finds_nothing(
    runner: Runner, clock: ManualClock
) -> None:
    token = job_token(SECRET, UNKNOWN, clock=clock)
    assert error_of(await ask(runner, f"/jobs/{UNKNOWN}?token={token}")) == (404, "unknown_job")


async def test_token_may_cancel_only_if_it_says_so(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    reading = job_token(SECRET, job.id, clock=clock)
    changing = job_token(SECRET, job.id, clock=clock, actions=["cancel"])
    path = f"/jobs/{job.id}/cancel"

    assert error_of(await ask(runner, path, "POST", headers=bearer(reading))) == (403, "forbidden")
    assert error_of(await ask(runner, f"/jobs/{job.id}", headers=bearer(changing))) == (
        403,
        "forbidden",
    )
    answer = await ask(runner, path, "POST", headers=bearer(changing))
    assert answer.json() == {"answer": "cancelled"}


async def test_token_expires_to_the_microsecond(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    token = job_token(SECRET, job.id, clock=clock, expires_in=timedelta(seconds=10))
    clock.advance(9.999999)
    assert (await ask(runner, f"/jobs/{job.id}?token={token}")).status_code == 200
    clock.advance(0.000001)
    answer = await ask(runner, f"/jobs/{job.id}?token={token}")
    assert error_of(answer) == (401, "expired_token")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "ajt1.",
        "ajt1.e30.",
        "ajt2.e30." + "A" * 43,
        "ajt1.%00." + "A" * 43,
        "é",
        "a" * 9_000,
    ],
)
async def test_malformed_token_is_named(runner: Runner, job: JobHandle[int], token: str) -> None:
    answer = await ask(runner, f"/jobs/{job.id}?token={token}")
    assert error_of(answer) == (401, "malformed_token")
    if token.isascii():
        answer = await ask(runner, f"/jobs/{job.id}", headers=bearer(token))
        assert error_of(answer) == (401, "malformed_token")


async def test_two_tokens_are_none(runner: Runner, clock: ManualClock, job: JobHandle[int]) -> None:
    token = job_token(SECRET, job.id, clock=clock)
    answer = await ask(runner, f"/jobs/{job.id}?token={token}&token={token}")
    assert error_of(answer) == (401, "malformed_token")


async def test_no_changed_character_of_a_token_passes(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    token = job_token(SECRET, job.id, clock=clock)
    assert (await ask(runner, f"/jobs/{job.id}?token={token}")).status_code == 200
    app = application(runner, secret=SECRET)
    async with client(app) as asking:
        for place, character in enumerate(token):
            for other in {"A", "B", "-", "."} - {character}:
                changed = token[:place] + other + token[place + 1 :]
                answer = await asking.get(f"/jobs/{job.id}?token={changed}")
                assert answer.status_code in (401, 403), changed


async def test_token_signed_by_somebody_else_is_foreign(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    for token in (
        job_token(OTHER_SECRET, job.id, clock=clock),
        job_token(SECRET + "x", job.id, clock=clock),
    ):
        answer = await ask(runner, f"/jobs/{job.id}?token={token}")
        assert error_of(answer) == (403, "foreign_token")


async def test_signed_nonsense_is_malformed(runner: Runner, job: JobHandle[int]) -> None:
    """Such as what another version of the library may have signed with the same secret."""
    from asyncjobs.web.tokens import _mac

    for payload in (b"{}", b"[1,2,3]", b"\xff", b'["a",1e400,[]]'):
        signed = "ajt1." + base64.urlsafe_b64encode(payload).decode().rstrip("=")
        token = f"{signed}.{_mac(SECRET.encode(), signed)}"
        answer = await ask(runner, f"/jobs/{job.id}?token={token}")
        assert error_of(answer) == (401, "malformed_token")


async def test_secrets_rotate(runner: Runner, clock: ManualClock, job: JobHandle[int]) -> None:
    old, new = job_token(SECRET, job.id, clock=clock), job_token(OTHER_SECRET, job.id, clock=clock)
    rotating = {"secret": [OTHER_SECRET, SECRET]}
    assert job_token([OTHER_SECRET, SECRET], job.id, clock=clock) == new
    for token in (old, new):
        answer = await ask(runner, f"/jobs/{job.id}?token={token}", options=rotating)
        assert answer.status_code == 200
    answer = await ask(runner, f"/jobs/{job.id}?token={old}", options={"secret": OTHER_SECRET})
    assert error_of(answer) == (403, "foreign_token")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"secret": None}, "secret must be"),
        ({"secret": "canary"}, "a secret has 6 bytes; it needs 32"),
        ({"job_id": ""}, "job_id must not be empty"),
        ({"expires_in": 0.5}, r"expires_in=0.5 is out of range: from 1"),
        ({"expires_in": "1h"}, "expires_in must be seconds"),
        ({"actions": ["delete"]}, "actions='delete' is not known"),
        ({"actions": "cancel"}, "actions must be a sequence of str, got str"),
        ({"clock": 5}, "clock's now"),
    ],
)
def test_wrong_options_of_a_token_are_named(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"secret": SECRET, "job_id": UNKNOWN, **arguments}
    with pytest.raises(InvalidOption, match=message) as raised:
        job_token(given.pop("secret"), given.pop("job_id"), **given)
    assert "canary" not in str(raised.value)


def test_tokens_are_compared_in_constant_time() -> None:
    from asyncjobs.web import tokens

    assert "hmac.compare_digest(mac, _mac(key, signed))" in inspect.getsource(tokens.check_token)


async def test_token_without_a_secret_is_as_good_as_none(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    token = job_token(SECRET, job.id, clock=clock)
    answer = await ask(
        runner, f"/jobs/{job.id}?token={token}", options={"authorize": lambda *_: False}
    )
    assert error_of(answer) == (403, "forbidden")


# The application's callable


async def test_authorize_is_asked_before_anything_is_looked_up(
    runner: Runner, job: JobHandle[int]
) -> None:
    """What is not allowed looks the same whether there is such a job or not."""
    asked = []

    async def authorize(request: Request, job_id: str, action: str) -> bool:
        await asyncio.sleep(0)
        asked.append((request.headers["cookie"], job_id, action))
        return False

    answers = [
        await ask(runner, path, method, options={"authorize": authorize},
                  headers={**SAME_ORIGIN, "cookie": "me"})
        for job_id in (job.id, UNKNOWN)
        for path, method in [
            (f"/jobs/{job_id}", "GET"), (f"/jobs/{job_id}/events", "GET"),
            (f"/jobs/{job_id}/result", "GET"), (f"/jobs/{job_id}/cancel", "POST"),
        ]
    ]  # fmt: skip

    assert {error_of(answer) for answer in answers} == {(403, "forbidden")}
    assert len({answer.content for answer in answers}) == 1
    actions = ["status", "status", "result", "cancel"]
    assert asked == [("me", job_id, action) for job_id in (job.id, UNKNOWN) for action in actions]


async def test_authorize_may_look_the_job_up(runner: Runner, job: JobHandle[int]) -> None:
    async def authorize(request: Request, job_id: str, action: str) -> bool:
        return (await runner.registry.get(job_id)).state == "queued"

    options = {"authorize": authorize}
    assert (await ask(runner, f"/jobs/{job.id}", options=options)).status_code == 200
    answer = await ask(runner, f"/jobs/{UNKNOWN}", options=options)
    assert error_of(answer) == (403, "forbidden")
    assert error_of(await ask(runner, "/jobs/%00", options=options)) == (404, "unknown_job")
    await job.cancel()
    assert error_of(await ask(runner, f"/jobs/{job.id}", options=options)) == (403, "forbidden")


@pytest.mark.parametrize("allowed", [1, "yes", None, object()])
async def test_only_true_lets_a_request_pass(
    runner: Runner, job: JobHandle[int], allowed: Any
) -> None:
    with pytest.raises(InvalidOption, match="authorize must answer True or False, got"):
        await ask(runner, f"/jobs/{job.id}", options={"authorize": lambda *_: allowed})


async def test_error_in_authorize_lets_nobody_pass(runner: Runner, job: JobHandle[int]) -> None:
    def authorize(request: Request, job_id: str, action: str) -> bool:
        raise PermissionError("no session")

    with pytest.raises(PermissionError):
        await ask(runner, f"/jobs/{job.id}", options={"authorize": authorize})


async def test_authorize_may_take_bearers_of_its_own_beside_tokens(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    def authorize(request: Request, job_id: str, action: str) -> bool:
        return request.headers.get("authorization") == "Bearer eyJ0.of.the.application"

    both = {"authorize": authorize, "secret": SECRET}
    path = f"/jobs/{job.id}"
    own = await ask(runner, path, options=both, headers=bearer("eyJ0.of.the.application"))
    token = job_token(SECRET, job.id, clock=clock)
    with_token = await ask(runner, path, options=both, headers=bearer(token))
    beside = await ask(
        runner, f"{path}?token={token}", options=both, headers=bearer("eyJ0.of.nobody")
    )
    neither = await ask(runner, path, options=both, headers=bearer("eyJ0.of.nobody"))

    assert [one.status_code for one in (own, with_token, beside, neither)] == [200, 200, 200, 403]


# Where a change may come from


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": ORIGIN}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"}, True),
        ({"origin": "https://app.example.com", "sec-fetch-site": "same-site"}, True),
        ({"origin": "HTTPS://APP.example.com"}, True),
        ({}, False),
        ({"origin": "null"}, False),
        ({"origin": "null", "host": ""}, False),
        ({"origin": "://test"}, False),
        ({"origin": "http://test.evil.example"}, False),
        ({"origin": "http://evil.example/http://test"}, False),
        ({"origin": "http://test:8080"}, False),
        ({"sec-fetch-site": "cross-site", "origin": ORIGIN}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"authorization": "Basic dXNlcjpwYXNz"}, False),
        ({"authorization": "Bearer of the application"}, True),
    ],
)
async def test_cancel_is_taken_from_the_same_origin_only(
    runner: Runner, job: JobHandle[int], headers: dict[str, str], allowed: bool
) -> None:
    options = {"authorize": lambda *_: True, "origins": ["https://app.example.com"]}
    answer = await ask(runner, f"/jobs/{job.id}/cancel", "POST", options=options, headers=headers)
    if allowed:
        assert answer.json() == {"answer": "cancelled"}
    else:
        assert error_of(answer) == (403, "cross_origin")
    assert (await job.job()).state == ("cancelled" if allowed else "queued")


async def test_cancel_with_a_token_in_the_query_needs_the_same_origin(
    runner: Runner, clock: ManualClock, job: JobHandle[int]
) -> None:
    token = job_token(SECRET, job.id, clock=clock, actions=["cancel"])
    path = f"/jobs/{job.id}/cancel?token={token}"
    assert error_of(await ask(runner, path, "POST")) == (403, "cross_origin")
    answer = await ask(runner, path, "POST", headers=SAME_ORIGIN)
    assert answer.json() == {"answer": "cancelled"}
