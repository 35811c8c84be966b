"""S4: a model that asks for its own code to be run is refused by the name of what asks, and nothing is fetched."""

import json
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tunewright.errors import TunewrightError
from tunewright.models._folders import resolve_model
from tunewright.models.programs import refuse_programs

ASKING = [
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}, "auto_map"),
    ("config.json", {"auto_map": {"AutoConfig": "org/repo--configuration_x.X"}}, "auto_map"),
    ("config.json", {"text_config": {"auto_map": {"AutoModel": "a.B"}}}, "text_config.auto_map"),
    ("config.json", {"parts": [{"auto_map": {"A": "a.B"}}]}, "parts.0.auto_map"),
    ("config.json", {"_attn_implementation_internal": "x"}, "_attn_implementation_internal"),
    ("config.json", {"_attn_implementation": "evil/kernel"}, "_attn_implementation"),
    ("config.json", {"attn_implementation": "evil/kernel@v1:run"}, "attn_implementation"),
    ("config.json", {"experts_implementation": "evil/kernel"}, "experts_implementation"),
    ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
    ("config.json", {"custom_pipelines": {"x": {"impl": "a.B"}}}, "custom_pipelines"),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
    ("generation_config.json", {"trust_remote_code": True}, "trust_remote_code"),
    ("anything.json", {"auto_map": {"A": "a.B"}}, "auto_map"),
]


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(resolve_model("tunewright/tiny"), tmp_path / "model")


def add(folder, name, values):
    file = folder / name
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | values))


@pytest.mark.parametrize(("name", "values", "key"), ASKING)
def test_what_asks_for_code_is_refused_by_name(model, name, values, key):
    add(model, name, values)
    with pytest.raises(TunewrightError) as caught:
        resolve_model(str(model))
    (problem,) = caught.value.problems
    assert (problem.code, caught.value.exit_code) == ("E_UNSAFE_FORMAT", 9)
    assert problem.message == f"The settings ask to run code: '{key}'."
    assert problem.where == str(model / name)


def test_all_is_told_at_once(model):
    (model / "modeling_x.py").write_text("raise SystemExit")
    add(model, "config.json", {"auto_map": {"A": "a.B"}, "trust_remote_code": True})
    with pytest.raises(TunewrightError) as caught:
        refuse_programs(model)
    assert [p.message.split(": ")[1] for p in caught.value.problems] == [
        "modeling_x.py.",
        "'auto_map'.",
        "'trust_remote_code'.",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"_attn_implementation": "sdpa"},
        {"attn_implementation": "flash_attention_2"},
        {"trust_remote_code": False},
        {"auto_map": {}},
        {"_attn_implementation_autoset": True},
    ],
)
def test_what_asks_for_nothing_is_taken(model, values):
    add(model, "config.json", values)
    assert resolve_model(str(model)) == model


class Sentinel(BaseHTTPRequestHandler):
    """A Hub that nobody may ask."""

    asked = 0

    def do_GET(self):
        """Count a request."""
        type(self).asked += 1
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_args):
        """Say nothing."""


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_nothing_runs_and_nothing_is_fetched(model, tmp_path, flags):
    """Under `python -O` as well, where an `assert` guards nothing."""
    canary = tmp_path / "canary"
    (model / "modeling_x.py").write_text(f"open({str(canary)!r}, 'w')\n")
    add(
        model,
        "config.json",
        {
            "auto_map": {"AutoModelForCausalLM": "modeling_x.X", "AutoConfig": "org/r--a.B"},
            "_attn_implementation": "org/kernel",
        },
    )
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    (tmp_path / "c.yaml").write_text("name: c\nprepare: {source: rows.jsonl, eval_split: 0.4}\n")
    server = HTTPServer(("127.0.0.1", 0), Sentinel)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = subprocess.run(
            [
                *(sys.executable, *flags, "-m", "tunewright", "prepare", "c.yaml"),
                *("--set", f"model.model_name_or_path={model}"),
            ],
            cwd=tmp_path,
            env=os.environ
            | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 9, done.stderr
    assert done.stderr.count("ERROR E_UNSAFE_FORMAT") == 3
    assert not canary.exists()
    assert Sentinel.asked == 0
