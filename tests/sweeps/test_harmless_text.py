"""Secrets and control characters reach neither the store nor a terminal."""

import io
import json

import pytest

from mg_core import terminal
from mg_core.redaction import harmless, redacted
from mg_core.store import ResultStore
from mg_core.store.attempt import Attempt
from mg_core.training.failures import Failure
from sweeps.planning import admit, make_plan
from sweeps.spec import load_spec
from sweeps.status import read_status
from sweeps.status_view import status_view

EVIL = "\x1b[2J\x1b]0;title\x07 \u202eevil\u202c \x9b31m [red]bold[/red] \r"
DANGEROUS = ("\x1b", "\x07", "\x9b", "\u202e", "\r")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at postgres://user:pw@host/db: no", "at postgres://***@host/db: no"),
        ("at 'https://TOKEN@host/x'", "at 'https://***@host/x'"),
        ("redis://:pw@h:6379/0", "redis://***@h:6379/0"),
        ("p://u:p@ss@h/d", "p://***@h/d"),
        ("p://u:pa/ss?w#rd@h/d", "p://***@h/d"),
        ("mysql+pymysql://root:p%40@db?x=1", "mysql+pymysql://***@db?x=1"),
        ("http://a.b/c http://u:p@x", "http://a.b/c http://***@x"),
        ("https://h/x?sig=abc&n=2&access_token=zz", "https://h/x?sig=***&n=2&access_token=***"),
        ("dsn host=db user=me password=hunter3 x=1", "dsn host=db user=me password=*** x=1"),
        ("connect(host='db', passwd = 'hunt er', n=2)", "connect(host='db', passwd = ***, n=2)"),
        ("{'Authorization': 'Bearer ey.J.x', 'n': 1}", "{'Authorization': 'Bearer ***', 'n': 1}"),
        ("cannot open //user:pw@host/share", "cannot open //***@host/share"),
        # What is no secret stays.
        ("// as a: b@c", None),
        ("http://host//a:b@c", None),
        ("num_tokens=197, key=val_f1", None),
        ("s3://bucket/0001-ixg@input.parquet", None),
        ("http://host:8080/path@x", None),
        ("abfss://container@account/x", None),
        ("me@example.org, https://a.b/c, x@y", None),
    ],
)
def test_passwords_in_addresses_are_blacked_out(text, expected):
    assert redacted(text) == (expected or text)


def test_parts_of_the_environments_addresses_are_blacked_out(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://user:hunter%402pw@host/db")
    monkeypatch.setenv("HTTPS_PROXY", "me:proxypass@proxy:3128")
    monkeypatch.setenv("EMAIL", "someone@example.org")
    said = redacted("no hunter@2pw, hunter%402pw, proxypass; someone")
    assert said == "no ***, ***, ***; someone"


@pytest.mark.parametrize(
    "password", ["ro0tp@ss/w", "pa'ss zebra", 'qu"o<te', "a@b@cdef", "x%40y/z"]
)
@pytest.mark.parametrize("scheme", ["mysql+pymysql://", "smb://", "//"])
def test_passwords_of_any_signs_are_known_from_the_environment(monkeypatch, scheme, password):
    monkeypatch.setenv("MY_STORAGE", f"{scheme}root:{password}@host/share")
    for text in (f"{scheme}root:{password}@host/share", f"wrong password {password} there"):
        assert password[-4:] not in redacted(text)
    monkeypatch.setenv("LIBRARIES", "lib:/opt/tools@2/lib")  # No address, and no secret.
    assert redacted("/opt/tools/x") == "/opt/tools/x"


def test_control_characters_become_signs():
    assert harmless("a\x1b[31m\x07\x7f\n\tλ") == "a␛[31m␇␡\n\tλ"
    assert not any(sign in harmless(EVIL) for sign in DANGEROUS)


def test_what_a_failure_says_is_stored_harmless():
    failure = Failure.of(RuntimeError(f"{EVIL} ftp://me:secret@h"))
    stored = json.dumps(failure.record(), ensure_ascii=False)
    assert not any(sign in stored for sign in DANGEROUS)
    assert "secret" not in failure.error + failure.signature


@pytest.mark.parametrize("is_terminal", [True, False])
def test_old_stores_are_shown_harmless(sweep, write, tmp_path, is_terminal, monkeypatch):
    plan = make_plan(load_spec(write(sweep), [], str(tmp_path / "store")))
    store = ResultStore(plan.spec.store)
    admit(plan, store)
    monkeypatch.setattr("socket.gethostname", lambda: "host\x1b[5m")
    config = next(iter(plan.grid.guided.values()))
    details = {"kind": "bug", "error": EVIL, "traceback": EVIL, "images": [EVIL], "host": EVIL}
    Attempt(store, config, plan.spec.objectives, "run").end("failed", **details)
    found = read_status(store)
    console = terminal.console()
    console._force_terminal, console.file = is_terminal, io.StringIO()
    console.print(status_view(found))
    text = console.file.getvalue()
    assert "[red]bold[/red]" in text
    # The colours are the console's own.
    assert not any(sign in text for sign in DANGEROUS if sign != "\x1b")
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text


def test_logs_of_old_stores_are_printed_harmless(sweep, write, tmp_path, mg_sweep):
    plan = make_plan(load_spec(write(sweep), [], str(tmp_path / "store")))
    store = ResultStore(plan.spec.store)
    admit(plan, store)
    config = next(iter(plan.grid.guided.values()))
    attempt = Attempt(store, config, plan.spec.objectives, "run")
    store.put_log(config.trial_id, attempt.key, f"{EVIL}\nnext\n")
    said = mg_sweep("logs", "store", config.trial_id).stdout
    assert "next" in said
    assert not any(sign in said for sign in DANGEROUS)
