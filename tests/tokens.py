"""Tokens and passwords of every shape that we know. All are generated; none was ever valid."""

import base64
import random
import string

ALNUM = string.ascii_letters + string.digits
HEX = string.digits + "abcdef"
UPPER = string.ascii_uppercase + "234567"
URLSAFE = ALNUM + "_-"
KEY_LINE = "-----BEGIN {} KEY-----"

# Kind, how the token begins, alphabet and length of the rest. No whole token stands in this file.
PREFIXED = [
    ("Hugging Face token", "hf_", ALNUM, 34),
    ("Hugging Face token", "api_org_", ALNUM, 34),
    ("Anthropic key", "sk-ant-api03-", URLSAFE, 93),
    ("OpenRouter key", "sk-or-v1-", HEX, 64),
    ("OpenAI key", "sk-proj-", URLSAFE, 120),
    ("OpenAI key", "sk-svcacct-", URLSAFE, 100),
    ("OpenAI key", "sk-", ALNUM, 48),
    ("AWS access key", "AKIA", UPPER, 16),
    ("AWS access key", "ASIA", UPPER, 16),
    ("GitHub token", "ghp_", ALNUM, 36),
    ("GitHub token", "gho_", ALNUM, 36),
    ("GitHub token", "ghs_", ALNUM, 36),
    ("GitLab token", "glpat-", URLSAFE, 20),
    ("Slack token", "xoxb-", ALNUM, 40),
    ("Slack token", "xapp-1-", ALNUM, 60),
    ("Google API key", "AIza", URLSAFE, 35),
    ("Google OAuth secret", "GOCSPX-", URLSAFE, 28),
    ("Stripe key", "sk_live_", ALNUM, 24),
    ("Stripe key", "rk_live_", ALNUM, 24),
    ("Twilio key", "SK", HEX, 32),
    ("npm token", "npm_", ALNUM, 36),
    ("PyPI token", "pypi-AgEIcHlwaS5vcmc", URLSAFE, 120),
    ("RubyGems key", "rubygems_", HEX, 48),
    ("DigitalOcean token", "dop_v1_", HEX, 64),
    ("Databricks token", "dapi", HEX, 32),
    ("Mailgun key", "key-", HEX, 32),
    ("Replicate token", "r8_", ALNUM, 37),
    ("Groq key", "gsk_", ALNUM, 52),
    ("xAI key", "xai-", ALNUM, 80),
    ("Perplexity key", "pplx-", ALNUM, 48),
    ("Fireworks key", "fw_", ALNUM, 24),
    ("NVIDIA key", "nvapi-", URLSAFE, 64),
    ("Shopify token", "shpat_", HEX, 32),
    ("Linear key", "lin_api_", ALNUM, 40),
    ("Docker token", "dckr_pat_", URLSAFE, 27),
    ("Figma token", "figd_", URLSAFE, 40),
    ("Supabase token", "sbp_", HEX, 40),
    ("Vault token", "hvs.", URLSAFE, 95),
    ("Notion token", "ntn_", ALNUM, 46),
    ("age key", "AGE-SECRET-KEY-1", UPPER, 58),
]


def draw(rng: random.Random, alphabet: str, length: int) -> str:
    """Random characters, the last of which is a letter or digit."""
    return "".join(rng.choices(alphabet, k=length - 1)) + rng.choice(
        [c for c in alphabet if c.isalnum()]
    )


def compound(rng: random.Random) -> list[tuple[str, str, str, str]]:
    """Kind, text before, secret, text after, for shapes of several parts or with a context."""

    def some(alphabet: str, length: int) -> str:
        return draw(rng, alphabet, length)

    snowflake = base64.b64encode(str(rng.randrange(10**17, 10**18)).encode()).decode()
    part = base64.urlsafe_b64encode(b'{"alg":"HS256","n":"%d"}' % rng.randrange(10**6)).decode()
    jwt = f"{part.rstrip('=')}.{part.rstrip('=')}.{some(URLSAFE, 43)}"
    body = "\n".join(some(ALNUM, 64) for _ in range(6))
    begin = KEY_LINE.format("RSA PRIVATE") + "\n"
    return [
        ("GitHub token", "", f"github_pat_{some(ALNUM, 22)}_{some(ALNUM, 59)}", ""),
        ("SendGrid key", "", f"SG.{some(URLSAFE, 22)}.{some(URLSAFE, 43)}", ""),
        ("Discord token", "", f"{snowflake}.{some(URLSAFE, 6)}.{some(URLSAFE, 38)}", ""),
        ("Telegram bot token", "", f"{rng.randrange(10**9, 10**10)}:AA{some(URLSAFE, 33)}", ""),
        ("JSON web token", "", jwt, ""),
        ("W&B key", "wandb login ", some(HEX, 40), ""),
        ("W&B key", "WANDB_API_KEY=", some(HEX, 40), ""),
        ("AWS secret key", "aws_secret_access_key = ", some(ALNUM + "/+", 40), ""),
        ("Cohere key", "COHERE_API_KEY: ", some(ALNUM, 40), ""),
        ("Twilio token", "twilio auth token ", some(HEX, 32), ""),
        ("Azure storage key", "AccountName=a;AccountKey=", some(ALNUM, 86) + "==", ";x=y"),
        ("Azure client secret", "", f"{some(ALNUM, 3)}8Q~{some(ALNUM, 34)}", ""),
        ("Mailchimp key", "", f"{some(HEX, 32)}-us12", ""),
        ("Terraform token", "", f"{some(ALNUM, 14)}.atlasv1.{some(URLSAFE, 67)}", ""),
        ("Airtable token", "", f"pat{some(ALNUM, 14)}.{some(HEX, 64)}", ""),
        ("authorization header", "Authorization: Bearer ", some(ALNUM, 30), ""),
        ("password in a URL", "postgres://user:", "hunter" + some(ALNUM, 4), "@db:5432/x"),
        ("password in a URL", "git clone https://me:", some(ALNUM, 20), "@host.org/r.git"),
        ("password or key", 'password = "', "a7" + some(ALNUM, 10), '"'),
        ("password or key", "OTHER_API_KEY=", "b5" + some(ALNUM, 30), "\n"),
        ("password or key", "{'client_secret': '", "c3" + some(ALNUM, 30), "'}"),
        ("private key", "", begin + body, "\n-----END"),
        ("private key", "", begin + "MIIB" + some(ALNUM, 20), ""),
    ]


def every_shape(seed: int) -> list[tuple[str, str, str, str]]:
    rng = random.Random(seed)
    plain = [(kind, "", begin + draw(rng, a, n), "") for kind, begin, a, n in PREFIXED]
    return plain + compound(rng)
