from dataclasses import replace

import pytest

from tunewright import load_config
from tunewright.models._folders import resolve_model
from tunewright.models.families import read_shape
from tunewright.train.needs import Disk
from tunewright.train.refusals import megabytes, sharding_problems, still_needed

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


def put(file, size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))


def test_what_is_written_is_not_needed_again(tmp_path):
    need = Disk(checkpoints=100, adapter=100, merged=100, exports=100)
    assert still_needed(need, tmp_path / "none") == need
    checkpoints = tmp_path / "training" / "checkpoints"
    put(checkpoints / "checkpoint-2" / "adapter_model.safetensors", 30)
    put(checkpoints / "checkpoint-14" / "optimizer.safetensors", 30)
    put(checkpoints / ".tmp-16-00000000" / "optimizer.safetensors", 30)
    put(checkpoints / "checkpoint-16-0000000a.torn" / "optimizer.safetensors", 30)
    put(tmp_path / "training.previous" / "checkpoints" / "checkpoint-2" / "a.safetensors", 30)
    put(tmp_path / "merged" / "model.safetensors", 999)
    put(tmp_path / "exported" / "inner" / "model.gguf", 7)
    left = still_needed(need, tmp_path)
    assert left == Disk(checkpoints=40, adapter=100, merged=0, exports=93)


def test_a_link_is_not_what_it_leads_to(tmp_path):
    need = Disk(checkpoints=0, adapter=0, merged=10_000, exports=0)
    put(tmp_path / "base.safetensors", 10_000)
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "model.safetensors").symlink_to(tmp_path / "base.safetensors")
    assert still_needed(need, tmp_path) == need


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (3_000_000, 2_000_000, ("3", "2")),
        (2_340_000, 2_310_000, ("2.34", "2.31")),
        (1_000_000_001, 1_000_000_000, ("1,000.000001", "1,000.000000")),
        (2, 2, ("0.000002", "0.000002")),
    ],
)
def test_two_sizes_can_be_told_apart(one, other, expected):
    assert megabytes(one, other) == expected
