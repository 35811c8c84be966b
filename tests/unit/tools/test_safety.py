"""The gate over the source: each forbidden thing is found however it is written, and nothing else."""

import pytest
from safety import FOLDERS, ROOT, faults

FORBIDDEN = {
    "code that came with a model": "AutoModel.from_pretrained(path, trust_remote_code=True)",
    "a variable for it": "AutoModel.from_pretrained(path, trust_remote_code=trusted)",
    "nothing said about it": "AutoModelForCausalLM.from_pretrained(path)",
    "a config that is not told": "import transformers as t\nt.AutoModelForCausalLM.from_config(c)",
    "code that came with a dataset": "from datasets import load_dataset as read\nread(name, trust_remote_code=True)",
    "by way of a dictionary": "settings = {'trust_remote_code': True}",
    "a variable in a dictionary": "settings = {'trust_remote_code': trusted}",
    "over two lines": "AutoModel.from_pretrained(\n path,\n trust_remote_code=\n True)",
    "torch's pickles": "import torch\ntorch.load(file)",
    "torch's pickles, asked for": "import torch as th\nth.load(file, weights_only=False)",
    "a pickle": "import pickle",
    "a part of one": "from pickle import loads",
    "another pickle": "import joblib.numpy_pickle",
    "numpy's pickles": "numpy.load(file, allow_pickle=True)",
    "objects of YAML": "import yaml\nyaml.load(text, yaml.Loader)",
    "objects of YAML by another name": "from yaml import unsafe_load as read\nread(text)",
    "a shell": "subprocess.Popen(words, shell=True)",
    "a shell, perhaps": "subprocess.run(words, shell=windows)",
    "an older shell": "import os\nos.system(words)",
    "an alias of it": "from os import system as call\ncall(words)",
    "a template": "from jinja2 import Environment\nEnvironment()",
    "a bare template": "import jinja2\njinja2.Template(text)",
    "text that is run": "eval(text)",
    "a guard that can be left out": "assert path.is_file()",
    "a file that is named and not made": "import tempfile\ntempfile.mktemp()",
}
ALLOWED = [
    "AutoModel.from_pretrained(path, trust_remote_code=False)",
    "PeftModel.from_pretrained(base, folder)",
    "TABLE = {'trust_remote_code': agrees(False)}",
    "from jinja2.sandbox import ImmutableSandboxedEnvironment\nImmutableSandboxedEnvironment()",
    "import yaml\nyaml.safe_load(text)\nyaml.dump(values, Dumper=Own)",
    "model.eval()",
    "subprocess.run(words, shell=False)",
    "json.load(file)",
]


@pytest.mark.parametrize("text", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_is_forbidden_is_found(text):
    found = list(faults(f"x = 1\n{text}\n"))
    assert found
    assert all(line > 1 for line, _ in found)


@pytest.mark.parametrize("text", ALLOWED)
def test_what_is_safe_is_left_alone(text):
    assert not list(faults(text))


def test_the_repository_has_none():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 200
    assert not [(path, *fault) for path in paths for fault in faults(path.read_text("utf-8"))]
