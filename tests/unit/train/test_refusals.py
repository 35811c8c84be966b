from dataclasses import replace

import pytest

from tunewright import load_config
from tunewright.models._load import resolve_model
from tunewright.models.families import read_shape
from tunewright.train.refusals import sharding_problems

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def places(*changes: str, tied: bool = True, **environment: str) -> list[str]:
    config = load_config("preset:demo", ["prepare.source=sample:manuscript", *changes])
    shape = replace(read_shape(resolve_model("tunewright/tiny")), tied=tied)
    found = sharding_problems(config, shape, "cpu", FSDP2 | environment)
    assert {problem.code for problem in found} <= {"E_CONFIG_VALUE"}
    return [problem.where for problem in found]


def test_what_can_be_trained_in_shares():
    assert places("train.lora.use_dora=true", "train.lora.modules_to_save=[norm]") == []
    assert places("train.lora.modules_to_save=[embed_tokens]", tied=False) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("train.load_in_4bit=true", "train.load_in_4bit"),
        ("train.optim=adamw_bnb_8bit", "train.optim"),
        ("train.optim=adafactor", "train.optim"),
        ("train.lora.init_lora_weights=pissa", "train.lora.init_lora_weights"),
        ("train.lora.modules_to_save=[norm,lm_head]", "train.lora.modules_to_save"),
        ("train.lora.modules_to_save=[model.embed_tokens]", "train.lora.modules_to_save"),
        ("model.extra_special_tokens=[<|a|>]", "model.extra_special_tokens"),
    ],
)
def test_what_cannot(change, place):
    assert places(change) == [place]
    assert places(change, ACCELERATE_USE_FSDP="false") == []


def test_what_the_launcher_must_not_ask_for():
    assert places(FSDP_VERSION="1") == ["FSDP_VERSION"]
    assert places(FSDP_ACTIVATION_CHECKPOINTING="True") == ["FSDP_ACTIVATION_CHECKPOINTING"]
