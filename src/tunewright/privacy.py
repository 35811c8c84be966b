"""What should not be in a dataset or an upload: passwords, keys, tokens, e-mail addresses.

Every rule has literal markers, and its pattern runs only on a text that has one of them; most rules
also need a run of characters that is longer than the words of prose. So prose costs microseconds.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

_START = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
"""Not inside a word; a written-out `\\n` before the token is no part of a word."""
_END = r"(?![A-Za-z0-9])"

_PREFIXED: tuple[tuple[str, str, str], ...] = (
    ("Hugging Face token", "hf_", r"[A-Za-z0-9]{34,}"),
    ("Hugging Face token", "api_org_", r"[A-Za-z0-9]{34}"),
    ("Anthropic key", "sk-ant-", r"[a-z]{3,10}\d\d-[\w-]{24,}"),
    ("OpenRouter key", "sk-or-v1-", r"[0-9a-f]{64}"),
    ("OpenAI key", "sk-proj-", r"[\w-]{32,}"),
    ("OpenAI key", "sk-svcacct-", r"[\w-]{32,}"),
    ("OpenAI key", "sk-admin-", r"[\w-]{32,}"),
    ("OpenAI key", "sk-", r"[A-Za-z0-9]{32,64}"),
    ("AWS access key", "AKIA", r"[A-Z0-9]{16}"),
    ("AWS access key", "ASIA", r"[A-Z0-9]{16}"),
    ("GitHub token", "ghp_", r"[A-Za-z0-9]{36,}"),
    ("GitHub token", "gho_", r"[A-Za-z0-9]{36,}"),
    ("GitHub token", "ghu_", r"[A-Za-z0-9]{36,}"),
    ("GitHub token", "ghs_", r"[A-Za-z0-9]{36,}"),
    ("GitHub token", "ghr_", r"[A-Za-z0-9]{36,}"),
    ("GitHub token", "github_pat_", r"[A-Za-z0-9]{22}_[A-Za-z0-9]{40,}"),
    ("GitLab token", "glpat-", r"[\w-]{20,}"),
    ("GitLab token", "gldt-", r"[\w-]{20,}"),
    ("GitLab token", "glrt-", r"[\w-]{20,}"),
    ("GitLab token", "glptt-", r"[0-9a-f]{40}"),
    ("Slack token", "xox", r"[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("Slack token", "xapp-", r"\d-[A-Za-z0-9-]{20,}"),
    ("Slack webhook", "hooks.slack.com/services/", r"T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}"),
    ("Google API key", "AIza", r"[\w-]{35}"),
    ("Google OAuth secret", "GOCSPX-", r"[\w-]{28}"),
    ("Google OAuth token", "ya29.", r"[\w-]{40,}"),
    ("Stripe key", "sk_live_", r"[A-Za-z0-9]{16,}"),
    ("Stripe key", "sk_test_", r"[A-Za-z0-9]{16,}"),
    ("Stripe key", "rk_live_", r"[A-Za-z0-9]{16,}"),
    ("Stripe key", "whsec_", r"[A-Za-z0-9]{32,}"),
    ("Twilio key", "SK", r"[0-9a-f]{32}"),
    ("SendGrid key", "SG.", r"[\w-]{22}\.[\w-]{43}"),
    ("npm token", "npm_", r"[A-Za-z0-9]{36}"),
    ("PyPI token", "pypi-Ag", r"[\w-]{50,}"),
    ("RubyGems key", "rubygems_", r"[0-9a-f]{48}"),
    ("DigitalOcean token", "dop_v1_", r"[0-9a-f]{64}"),
    ("DigitalOcean token", "doo_v1_", r"[0-9a-f]{64}"),
    ("DigitalOcean token", "dor_v1_", r"[0-9a-f]{64}"),
    ("Databricks token", "dapi", r"[0-9a-f]{32}(?:-\d)?"),
    ("Mailgun key", "key-", r"[0-9a-f]{32}"),
    ("Replicate token", "r8_", r"[A-Za-z0-9]{37}"),
    ("Groq key", "gsk_", r"[A-Za-z0-9]{52}"),
    ("xAI key", "xai-", r"[A-Za-z0-9]{70,}"),
    ("Perplexity key", "pplx-", r"[A-Za-z0-9]{40,}"),
    ("Fireworks key", "fw_", r"[A-Za-z0-9]{24}"),
    ("NVIDIA key", "nvapi-", r"[\w-]{60,}"),
    ("LangSmith key", "lsv2_", r"(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    ("Pinecone key", "pcsk_", r"[A-Za-z0-9_]{50,}"),
    ("Tavily key", "tvly-", r"[A-Za-z0-9-]{32,}"),
    ("Shopify token", "shpat_", r"[0-9a-fA-F]{32}"),
    ("Shopify token", "shpss_", r"[0-9a-fA-F]{32}"),
    ("Square token", "sq0csp-", r"[\w-]{43}"),
    ("Square token", "sq0atp-", r"[\w-]{22}"),
    ("Linear key", "lin_api_", r"[A-Za-z0-9]{40}"),
    ("Notion token", "ntn_", r"[A-Za-z0-9]{40,}"),
    ("Postman key", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}"),
    ("Grafana token", "glsa_", r"[A-Za-z0-9]{32}_[0-9a-f]{8}"),
    ("Grafana token", "glc_", r"[A-Za-z0-9+/=]{40,}"),
    ("Vault token", "hvs.", r"[\w-]{90,}"),
    ("Docker token", "dckr_pat_", r"[\w-]{27,}"),
    ("Figma token", "figd_", r"[\w-]{40,}"),
    ("Supabase token", "sbp_", r"[0-9a-f]{40}"),
    ("New Relic key", "NRAK-", r"[A-Z0-9]{27}"),
    ("Doppler token", "dp.pt.", r"[A-Za-z0-9]{40,}"),
    ("Atlassian token", "ATATT3", r"[\w=-]{100,}"),
    ("age key", "AGE-SECRET-KEY-1", r"[A-Z0-9]{58}"),
    ("JSON web token", "eyJ", r"[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
)
"""Kind, the literal that the token begins with, and the rest.

Source: the formats that the issuers publish for secret scanning.
"""

ASSIGNED = "password or key"
IN_URL = "password in a URL"
_ASSIGNED = (
    r"(?i)(?:password|passwd|passphrase|pwd|api[_-]?key|access[_-]?key|secret[_-]?key|client[_-]?secret"
    r"|auth[_-]?token|access[_-]?token)[\"']?\s{0,3}(?:=>|:=|=|:)\s{0,3}"
    r"(?P<quote>[\"']?)(?P<secret>[^\s\"'<>(){}\[\],;$|`]{8,200}+)(?![(\[{<$])"
)
KEY_BLOCK = "private key"
AWS = "AWS secret key"
_AWS_SECRET = r"(?<![A-Za-z0-9/+])(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
_AWS_ID = r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
_GAP = r"(?:\s|\\[nrt]|[\"',>#*|]){0,40}+"
"""What stands between the lines of a key: line breaks, also written out, quotes, marks of a citation."""
_KEY_FIELDS = r"(?:[A-Z][A-Za-z-]{2,20}: [^\n\\]{0,120}(?:\n|\\n)\s*){0,5}"
_KEY_BEGIN = (
    r"(?:[A-Za-z0-9+/=]{16}|MI[A-Z]{1,2}[A-Za-z0-9+/]{2}|b3BlbnNz"
    rf"|[A-Za-z0-9+/=]{{8,15}}+(?={_GAP}-----END))"
)
"""A long run of base 64, or how a key of DER or OpenSSH begins, or a short run with the closing line after it."""
_CONTEXT: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        KEY_BLOCK,
        ("private key",),
        r"(?P<secret>-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        rf"{_GAP}{_KEY_FIELDS}{_KEY_BEGIN}[A-Za-z0-9+/=]*+"
        rf"(?:{_GAP}[A-Za-z0-9+/=]{{16,}}+)*+(?:{_GAP}[A-Za-z0-9+/=]{{1,64}}+(?={_GAP}(?:=|-----END)))?+"
        rf"(?:{_GAP}=[A-Za-z0-9+/]{{4}})?+(?:{_GAP}-----END [A-Z0-9 ]{{0,40}}-----)?+)",
    ),
    (
        "W&B key",
        ("wandb", "weights & biases", "weights and biases"),
        r"(?i:wandb|weights (?:&|and) biases)(?:(?!commit|sha|rev)[^\n]){0,40}?"
        r"(?<![0-9A-Za-z])(?P<secret>[0-9a-f]{40})(?![0-9A-Za-z])",
    ),
    (
        AWS,
        ("aws", "secret"),
        rf"(?i:aws[^\n]{{0,30}}?(?:secret|key)|secret[ _-]?access[ _-]?key)[^\n]{{0,30}}?{_AWS_SECRET}",
    ),
    (AWS, ("AKIA", "ASIA"), rf"{_AWS_ID}[^\n]{{0,120}}?(?:\n[^\n]{{0,120}}?)?{_AWS_SECRET}"),
    (
        AWS,
        ("AKIA", "ASIA"),
        rf"{_AWS_SECRET}(?=[^\n]{{0,120}}(?:\n[^\n]{{0,120}})?(?<![A-Za-z0-9]){_AWS_ID})",
    ),
    (
        "Cohere key",
        ("cohere",),
        r"(?i:cohere)[^\n]{0,30}?(?i:key|token)[^\n]{0,12}?"
        r"(?<![A-Za-z0-9])(?P<secret>[A-Za-z0-9]{40})(?![A-Za-z0-9])",
    ),
    (
        "Twilio token",
        ("twilio",),
        r"(?i:twilio)[^\n]{0,30}?(?i:key|token)[^\n]{0,12}?"
        r"(?<![A-Za-z0-9])(?P<secret>[0-9a-f]{32})(?![A-Za-z0-9])",
    ),
    (
        "Telegram bot token",
        (":aa",),
        r"(?<!\d)(?P<secret>\d{8,10}:AA[\w-]{33})(?![\w-])",
    ),
    (
        "Discord webhook",
        ("/api/webhooks/",),
        r"(?P<secret>discord(?:app)?\.com/api/webhooks/\d{15,20}/[\w-]{60,})",
    ),
    (
        "Azure storage key",
        ("accountkey=", "sharedaccesskey="),
        r"(?i:AccountKey|SharedAccessKey)=(?P<secret>[A-Za-z0-9+/]{42,86}={1,2})",
    ),
    (
        "Azure client secret",
        ("q~",),
        r"(?<![\w~.-])(?P<secret>[\w~.-]{3}\dQ~[\w~.-]{31,34})(?![\w~-])",
    ),
    (
        "Mailchimp key",
        ("-us",),
        r"(?<![0-9A-Za-z])(?P<secret>[0-9a-f]{32}-us\d{1,2})(?!\d)",
    ),
    (
        "Terraform token",
        (".atlasv1.",),
        r"(?<![A-Za-z0-9])(?P<secret>[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,})",
    ),
    (
        "Airtable token",
        ("pat",),
        r"(?<![A-Za-z0-9])(?P<secret>pat[A-Za-z0-9]{14}\.[0-9a-f]{64})(?![A-Za-z0-9])",
    ),
    (
        "authorization header",
        ("bearer ", "basic "),
        r"(?i)(?:\bbearer|authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?basic) {1,3}"
        r"(?P<secret>[\w.~+/=-]{20,})",
    ),
    (
        IN_URL,
        ("://",),
        r"(?i)(?<![a-z0-9])[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,100}:"
        r"(?P<secret>[^\s/@\"'<>]{2,200})@[a-z0-9\[]",
    ),
    (ASSIGNED, ("passw", "passphrase", "pwd", "key", "secret", "token"), _ASSIGNED),
)
"""Kind, lower-case markers (upper-case ones match as they stand), and a pattern with the group `secret`."""

_DISCORD = (
    r"(?P<secret>[MNO][DTjz](?:[A-Za-z0-9_-]{4}){5,6}[A-Za-z0-9_-]{2}\.[\w-]{6}\.[\w-]{27,40})"
)
_DISCORD_MARKERS = ("MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT")
"""A Discord token starts with a decimal number in base 64: these are its first digit."""

_URL_PLACEHOLDERS = frozenset(
    ["pass", "password", "passwd", "pwd", "secret", "token", "user", "username", "key"]
)
_PLACEHOLDER = re.compile(
    r"(?i)example|placeholder|your|x{4}|\*{3}|\.{3}|\$\{|\{\{|1234567890abc|redacted"
)
_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9_%+-][\w.%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![\w-])"
)
_NO_ADDRESS = re.compile(
    r"(?i)@(?:[a-z0-9-]+\.)*(?:example(?:\.(?:com|org|net))?|test|invalid|localhost)$"
)
_IN_USERINFO = re.compile(r"://[^\s/@\"'<>]*$")
MIN_MIXED = 6
"""Different characters that a secret has at least; fewer is a row of x or zeros."""
TOKEN = 20
"""Characters that a token has at least."""
KEYS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "TUNEWRIGHT_API_KEY",
    "OPENAI_API_KEY",
)
"""Variables of the environment whose values are secret, whatever they look like."""
MIN_KEY = 8
"""Characters of such a value; what is shorter occurs in texts by chance."""
LONG = 200
"""Characters from which a secret is a key block, in which a placeholder's letters may occur by chance."""


@dataclass(frozen=True)
class Found:
    """Something private in a text.

    Attributes:
        kind: What it is, in words.
        start: Its first character in the text.
        end: One past its last.
        shown: It, with all but a few characters hidden.
    """

    kind: str
    start: int
    end: int
    shown: str


def secrets_in(text: str) -> list[Found]:
    """Return the passwords, keys and tokens of a text in order, none inside another.

    What is clearly a placeholder (`hf_xxxx`, `AKIA...EXAMPLE`, `user:password@`) is not reported.
    """
    lowered = text.lower()
    candidates = [rule for marker, rule in _SHORT if marker in lowered]
    if _LONG_RUN.match(text):
        candidates += [rule for marker, rule in _EXACT if marker in text]
        candidates += [rule for marker, rule in _LOWER if marker in lowered]
    if not candidates:
        return []
    return sorted(_apart(_matches(text, sorted(set(candidates)))), key=lambda one: one.start)


def keys_in(text: str) -> list[Found]:
    """Return the values of KEYS in a text, as they are and as Python writes them down, in order."""
    found = [
        Found(f"the value of {name}", match.start(), match.end(), masked(value))
        for name in KEYS
        if len(value := os.environ.get(name, "")) >= MIN_KEY
        for written in dict.fromkeys((value, repr(value)[1:-1]))
        for match in re.finditer(re.escape(written), text)
    ]
    return sorted(_apart(found), key=lambda one: one.start)


def without_secrets(text: str) -> str:
    """Return a text in which all but a few characters of each secret, and of each value of KEYS, are hidden."""
    for look in (keys_in, secrets_in):
        for found in reversed(look(text)):
            text = text[: found.start] + found.shown + text[found.end :]
    return text


def emails_in(text: str) -> list[Found]:
    """Return the e-mail addresses of a text in order, but none of a secret or of a URL with a user name.

    Those of reserved domains are no addresses.

    Source: RFC 2606 reserves example.com, .test and .invalid.
    """
    if "@" not in text:
        return []
    found = [
        Found("e-mail address", match.start(), match.end(), masked(match[0]))
        for match in _EMAIL.finditer(text)
        if not _NO_ADDRESS.search(match[0])
        and not _IN_USERINFO.search(text, max(0, match.start() - 250), match.start())
    ]
    return _apart(found, secrets_in(text)) if found else []


def texts_in(value: object) -> Iterator[str]:
    """Yield every text of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_in(key)
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)


def masked(secret: str) -> str:
    """Return a secret with all but a few characters hidden, so that its owner can tell which it is.

    Of one shorter than a token, as people's passwords are, two characters are shown at most.
    """
    short = len(secret) < TOKEN
    head = min(2 if short else 5, len(secret) // 4)
    tail = 0 if short else 2
    return f"{secret[:head]}...{secret[len(secret) - tail :]}"


def _matches(text: str, rules: Iterable[int]) -> Iterator[Found]:
    for number in rules:
        kind = _TABLE[number][0]
        for match in _pattern(number).finditer(text):
            if _real(kind, match):
                secret = match["secret"]
                yield Found(kind, *match.span("secret"), masked(secret))


def _real(kind: str, match: re.Match[str]) -> bool:
    secret = match["secret"]
    if len(secret) < LONG and _PLACEHOLDER.search(secret):
        return False
    if kind == IN_URL:
        return secret.lower() not in _URL_PLACEHOLDERS and secret[0] not in "$%{"
    digits = any(c.isdigit() for c in secret)
    mixed = secret.upper() != secret and secret.lower() != secret
    if kind == AWS and not mixed:
        return False
    if kind == ASSIGNED:
        code = not match["quote"] and ("_" in secret or "." in secret)
        where = "://" in secret or secret[0] in "/~.%"
        return digits and any(c.isalpha() for c in secret) and not code and not where
    return (digits or mixed or secret.isupper()) and len(set(secret)) >= MIN_MIXED


def _apart(found: Iterable[Found], taken: Sequence[Found] = ()) -> list[Found]:
    """Return what overlaps neither `taken` nor something that an earlier, more specific rule has found."""
    kept = list(taken)
    for one in found:
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return kept[len(taken) :]


_TABLE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    *(
        (kind, (marker,), f"{_START}(?P<secret>{re.escape(marker)}{rest}){_END}")
        for kind, marker, rest in _PREFIXED
    ),
    ("Discord token", _DISCORD_MARKERS, f"{_START}{_DISCORD}(?![\\w-])"),
    *_CONTEXT,
)


@cache
def _pattern(number: int) -> re.Pattern[str]:
    """Return the pattern of a rule; few of them are ever needed."""
    return re.compile(_TABLE[number][2])


def _marked(rules: Iterable[int]) -> list[tuple[str, int]]:
    return [(marker, number) for number in sorted(rules) for marker in _TABLE[number][1]]


_PROSE = tuple(
    number for number, rule in enumerate(_TABLE) if rule[0] in {KEY_BLOCK, IN_URL, ASSIGNED}
)
_FOLDED = frozenset(
    number
    for number, (_, markers, _) in enumerate(_TABLE)
    if number > len(_PREFIXED) and markers[0] == markers[0].lower()
)
"""Rules whose lower-case markers stand for any case."""
_SHORT = _marked(_PROSE)
_LOWER = _marked(_FOLDED.difference(_PROSE))
_EXACT = _marked(set(range(len(_TABLE))) - _FOLDED)
_LONG_RUN = re.compile(r"\s*+(?:\S{1,15}+\s++)*+\S{16}")
"""All other secrets are at least this long with what stands around them."""
