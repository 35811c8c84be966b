"""Options that may change speed or memory but not the numbers."""

import json

import pytest

from tunewright import train


def losses(artifact) -> list[float]:
    rows = [json.loads(x) for x in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    return [
        row.get("loss", row.get("eval_loss")) for row in rows if {"loss", "eval_loss"} & row.keys()
    ]


ONE_EPOCH = (
    "train.num_train_epochs=1",
    "train.dtype=float32",
    "train.train_sampling_strategy=random",
)


@pytest.fixture(scope="module")
def plain(trained, make_config):
    return train(make_config(*ONE_EPOCH), trained[1])


@pytest.mark.parametrize(
    "changes",
    [
        ("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=4"),
        ("train.gradient_checkpointing=true",),
    ],
    ids=["8 rows at once = 2 rows, 4 times", "checkpointing on = off"],
)
def test_same_losses(trained, make_config, plain, changes):
    other = train(make_config(*ONE_EPOCH, *changes), trained[1])
    # Trainer weights evaluation by rows of a batch: only what one batch holds is comparable exactly.
    want = [x for x in losses(plain)[1::2] if x]
    got = [x for x in losses(other)[1::2] if x]
    assert len(want) == len(got) >= 2
    assert got == pytest.approx(want, rel=2e-4)
