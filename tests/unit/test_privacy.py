"""Secrets and addresses in texts. Every token here is generated; none was ever valid."""

import base64
import hashlib
import itertools
import random
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SAMPLES, SHARED
from tokens import ALNUM, KEY_LINE, UPPER, draw, every_shape

from tunewright.privacy import emails_in, masked, secrets_in, texts_in


def test_there_are_at_least_forty_kinds():
    assert len({kind for kind, *_ in every_shape(0)}) >= 40


@pytest.mark.parametrize("seed", range(12))
def test_every_shape_is_found_whole_named_and_masked(seed):
    for kind, before, secret, after in every_shape(seed):
        text = f"It said: {before}{secret}{after} and went on."
        found = secrets_in(text)
        assert [f.kind for f in found] == [kind], (kind, text)
        start = text.index(secret)
        assert found[0].start <= start
        assert found[0].end >= start + len(secret)
        assert secret not in found[0].shown
        hidden = len(secret) - len(found[0].shown.replace("...", ""))
        assert hidden >= 0.6 * len(secret)


AWS_FRAMES = [
    "aws_access_key_id = {id}\naws_secret_access_key = {key}\n",
    "{id},{key}",
    "{id}\n{key}",
    "{key}\n{id}",
    "user {key} has {id}",
    '{{"AccessKeyId": "{id}", "SecretAccessKey": "{key}"}}',
    "<AccessKeyId>{id}</AccessKeyId>\n<SecretAccessKey>{key}</SecretAccessKey>",
    "The id is {id} and the secret is {key}.",
    "export AWS_ACCESS_KEY_ID={id}; export AWS_SECRET_ACCESS_KEY={key}",
]


@pytest.mark.parametrize("frame", AWS_FRAMES)
@pytest.mark.parametrize("seed", range(5))
def test_the_aws_secret_is_found_beside_its_id(frame, seed):
    rng = random.Random(seed)
    text = frame.format(id="AKIA" + draw(rng, UPPER, 16), key="aB3" + draw(rng, ALNUM + "/+", 37))
    assert sorted(f.kind for f in secrets_in(text)) == ["AWS access key", "AWS secret key"]


@pytest.mark.parametrize(
    "frame",
    ["secret_access_key: {}", "aws_secret {}", "SecretAccessKey={}", "secret access key {}"],
)
def test_the_aws_secret_is_found_by_its_name(frame):
    key = "aB3" + draw(random.Random(2), ALNUM + "/+", 37)
    assert [f.kind for f in secrets_in(frame.format(key))] == ["AWS secret key"]
    assert secrets_in(f"the key is {key}") == []


def test_a_hash_beside_an_aws_id_is_no_secret():
    rng = random.Random(3)
    text = f"AKIA{draw(rng, UPPER, 16)} at {hashlib.sha1(b'x').hexdigest()}"
    assert [f.kind for f in secrets_in(text)] == ["AWS access key"]


KEYS = [
    ("RSA PRIVATE", "MIICXQIB" + "AAKBgQDa7"),
    ("EC PRIVATE", "MHcCAQEE" + "IIrYSSNQ"),
    ("PRIVATE", "MIIE" + "vQIBADAN"),
    ("ENCRYPTED PRIVATE", "MIIFLTBX" + "BgkqhkiG9w0B"),
    ("OPENSSH PRIVATE", "b3BlbnNz" + "aC1rZXktdjEAAAAA"),
    ("OPENSSH PRIVATE", "b3BlbnNz"),
    (
        "RSA PRIVATE",
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\nq7Zk2m" + "Xw9LpR4tVb8N",
    ),
]


@pytest.mark.parametrize("gap", ["\n", "\\n", " ", "\r\n    ", "\n> "])
@pytest.mark.parametrize(("kind", "body"), KEYS)
def test_short_keys_are_found_whole_and_cut_off_ones_too(kind, body, gap):
    begin = KEY_LINE.format(kind)
    ended = f"{begin}{gap}{body}{gap}-----END {kind} KEY-----"
    (found,) = secrets_in(f"He wrote: {ended} and left it there.")
    assert f"He wrote: {ended} and"[found.start : found.end] == ended
    cut = f"{begin}{gap}{body}"
    (found,) = secrets_in(cut)
    assert (found.kind, found.end) == ("private key", len(cut))
    assert body not in found.shown


def test_a_pgp_key_is_found_whole():
    rng = random.Random(4)
    lines = "\n".join(draw(rng, ALNUM + "+/", 64) for _ in range(3))
    begin = KEY_LINE.format("PGP PRIVATE").replace("KEY", "KEY BLOCK")
    end = begin.replace("BEGIN", "END")
    head = "Version: GnuPG v2\nComment: made at home (2019)\n\n"
    for text in (f"{begin}\n\n{lines}", f"{begin}\n{head}{lines}\nab=\n=x7Qa\n{end}"):
        (found,) = secrets_in(f"{text}\nHe slept.")
        assert (found.start, found.end) == (0, len(text))


@pytest.mark.parametrize("kind", ["RSA PRIVATE", "OPENSSH PRIVATE", "PRIVATE"])
@pytest.mark.parametrize("body", ["...", "<your key>", "your-key-here", "", "[base64]", "KEY"])
def test_a_key_block_without_a_key_is_no_secret(kind, body):
    assert secrets_in(f"{KEY_LINE.format(kind)}\n{body}\n-----END {kind} KEY-----") == []


@pytest.mark.parametrize(
    "text",
    [
        "postgres://bob:pw@host",
        "postgres://bob:pw@db.host.com/x",
        "see https://ann:h7kk2@mail.host.org now",
        "password='abc123def@mail.host.org'",
        "ftp://a:pw@h.io",
    ],
)
def test_what_is_in_a_secret_is_no_address_as_well(text):
    assert len(secrets_in(text)) == 1
    assert emails_in(text) == []


@pytest.mark.parametrize("frame", ["{}", '"{}"', "'{}',", "`{}`", "({})", "x={}&y=1", "a\\n{}\\nb"])
def test_a_token_is_found_in_any_frame(frame):
    token = "hf_" + draw(random.Random(5), ALNUM, 34)
    (found,) = secrets_in(frame.format(token))
    assert frame.format(token)[found.start : found.end] == token


def test_all_secrets_of_a_text_are_found_in_order():
    shapes = every_shape(3)
    text = "\n\n".join(before + secret + after for _, before, secret, after in shapes)
    found = secrets_in(text)
    assert [f.kind for f in found] == [kind for kind, *_ in shapes]
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    "text",
    [
        "She had the key, and the password was a secret token of her esteem.",
        "password: please ask the administrator",
        "The password=required field is checked; api_key=None by default.",
        "api_key = os.environ['SERVICE_KEY_1']",
        "access_token = get_token1(user)",
        "password = self.password_1",
        "api_key: YOUR_API_KEY_HERE_123",
        "hf_" + "x" * 34,
        "hf_" + "0" * 34,
        "AKIA" + "IOSFODNN7EXAMPLE",
        "https://user:password@localhost/db",
        "https://user:${PASSWORD}@localhost/db",
        "https://example.org:8080/a@b",
        "https://example.org/path:to/thing@2x.png",
        "risk-taking-is-not-an-openai-key-although-it-has-the-letters",
        "sk-proj-this-is-only-a-name-made-of-words-and-hyphens",
        KEY_LINE.format("PUBLIC"),
        f"The header '{KEY_LINE.format('PRIVATE')}' starts a key.",
        "a bearer of good news",
        "wandb: at commit " + "ab12" * 10,
        "sha1 " + "ab12" * 10,
        "access_key: https://docs.host.org/access-keys-2",
        "max_tokens=2000000 and token_type_ids",
        "2026-11-01T10:00:00+00:00",
        "",
    ],
)
def test_what_only_looks_like_a_secret_is_none(text):
    assert secrets_in(text) == []


def test_hashes_uuids_and_base64_are_no_secrets():
    rng = random.Random(11)
    noise: list[str] = []
    for _ in range(400):
        raw = rng.randbytes(90)
        noise += [base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]
        noise += [getattr(hashlib, name)(raw).hexdigest() for name in ("md5", "sha1", "sha256")]
        noise.append(str(uuid.UUID(bytes=raw[:16], version=4)))
    assert secrets_in("\n".join(noise)) == []
    assert emails_in("\n".join(noise)) == []


def test_the_bundled_samples_hold_nothing_private():
    files = [p for p in SAMPLES.rglob("*") if p.is_file()]
    assert len(files) > 10
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert secrets_in(text) + emails_in(text) == [], file


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/corpora/british-fiction")
def test_novels_hold_nothing_private():
    novels = sorted(SHARED.rglob("*.txt"))[:5]
    assert novels
    for novel in novels:
        text = novel.read_text(encoding="utf-8", errors="replace")
        assert secrets_in(text) + emails_in(text) == [], novel


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to ada.lovelace+x@engine.co.uk.", ["ada.lovelace+x@engine.co.uk"]),
        ("<a@b.io>, c_d@e-f.de;", ["a@b.io", "c_d@e-f.de"]),
        ("user@example.com, a@mail.example.org, b@c.test", []),
        ("@handle, a@b, a @ b.com, 5@6.7, git@host:repo", []),
        ("no address", []),
        ("ssh://git@host.org/r.git and ftp://user:password@files.host.org/x", []),
        ("https://host.org/ and a@b.io", ["a@b.io"]),
    ],
)
def test_addresses(text, found):
    assert [text[f.start : f.end] for f in emails_in(text)] == found
    assert all("@" not in f.shown or f.shown.endswith(text[-2:]) for f in emails_in(text))


def test_texts_of_a_value_are_all_its_strings():
    value = {"a": ["b", {"c": "d"}], "e": 1, "f": None, "g": ("h", True)}
    assert list(texts_in(value)) == ["a", "b", "c", "d", "e", "f", "g", "h"]


@given(st.text(max_size=300))
def test_any_text_is_scanned_and_positions_are_inside(text):
    for found in secrets_in(text) + emails_in(text):
        assert 0 <= found.start < found.end <= len(text)
        assert found.shown == masked(text[found.start : found.end])


@given(st.text(alphabet=" .,;\n—äé中", max_size=40), st.integers(0, 30))
def test_surroundings_do_not_hide_a_token(around, seed):
    token = "ghp_" + draw(random.Random(seed), ALNUM, 36)
    text = around + token + around[::-1]
    assert [text[f.start : f.end] for f in secrets_in(text)] == [token]


@given(st.text(alphabet=ALNUM, min_size=1, max_size=200))
def test_masking_hides_most(secret):
    shown = masked(secret).replace("...", "")
    assert len(shown) <= len(secret) // 2
    if len(secret) < 20:
        assert len(shown) <= 2
    assert masked(secret).startswith(secret[: len(shown)] if len(secret) < 20 else secret[:5])


@pytest.mark.parametrize(
    "unit",
    [
        "a://",
        "sk-",
        "password=",
        "a.b@",
        "eyJa.",
        "aws key ",
        "A-",
        KEY_LINE.format("PRIVATE"),
        "AKIA" + "B2" * 8,
        "aB3/" * 10 + " ",
    ],
)
def test_long_hostile_text_takes_no_long_time(unit):
    began = time.perf_counter()
    secrets_in(unit * 20_000)
    emails_in(unit * 20_000)
    assert time.perf_counter() - began < 5
