"""Random bases that tests of training share."""

import shutil
from pathlib import Path

import pytest
import torch
from adapters import KINDS, SIZES
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.models._folders import resolve_model


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Random models that use the bundled tokenizer; Qwen3's embedding is its head as well."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **SIZES, tie_word_embeddings=kind == "qwen3")
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(resolve_model("tunewright/tiny") / name, folder / name)
        found[kind] = folder
    return found
