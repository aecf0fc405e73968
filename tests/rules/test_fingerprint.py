"""Which failures are the same."""

from __future__ import annotations

from asyncjobs.rules.fingerprint import FINGERPRINT_LENGTH, Frame, fingerprint_of, place_of

LIBRARIES = ("/lib/python/", "/venv/site-packages/")


def test_fingerprint_tells_task_type_and_place_apart() -> None:
    kinds = {
        fingerprint_of(*parts)
        for parts in [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "")]
    }
    assert len(kinds) == 4
    assert all(len(kind) == FINGERPRINT_LENGTH for kind in kinds)
    assert fingerprint_of("a", "b", "c") == fingerprint_of("a", "b", "c")


def test_fingerprint_of_any_text_is_one() -> None:
    assert len(fingerprint_of("\ud800", "", "")) == FINGERPRINT_LENGTH


def test_place_is_the_innermost_frame_of_the_users_own_code() -> None:
    frames = [
        Frame("shop.jobs", "send", 10, "/app/shop/jobs.py"),
        Frame("shop.mail", "Mailer.post", 20, "/app/shop/mail.py"),
        Frame("httpx", "post", 30, "/venv/site-packages/httpx.py"),
        Frame("json", "loads", 40, "/lib/python/json.py"),
        Frame("importlib", "find", 50, "<frozen importlib>"),
    ]
    assert place_of(frames, LIBRARIES) == "shop.mail:Mailer.post:20"


def test_application_that_is_itself_installed_is_the_users_own_code() -> None:
    frames = [
        Frame("shop.jobs", "send", 10, "/venv/site-packages/shop/jobs.py"),
        Frame("shop.mail", "post", 20, "/venv/site-packages/shop/mail.py"),
        Frame("httpx", "post", 30, "/venv/site-packages/httpx.py"),
    ]
    assert place_of(frames, LIBRARIES) == "shop.mail:post:20"


def test_script_is_called_by_its_file_in_the_host_and_in_workers() -> None:
    for name in ("__main__", "__asyncjobs_main__"):
        assert place_of([Frame(name, "f", 1, "/app/nightly.py")], LIBRARIES) == "nightly:f:1"


def test_without_frames_there_is_no_place() -> None:
    assert place_of([], LIBRARIES) == ""
