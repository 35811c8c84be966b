"""Measure what checkpoints cost of a training: hashing, writing, fsync, retention.

    python benchmarks/checkpoint_cost.py [--set train.num_train_epochs=4 ...]

Trains the demo's configuration in a temporary folder, at the default interval, and prints one line of JSON: the
seconds of the training, those spent on checkpoints, and their share. The goal is at most 3 %.
"""

import json
import sys
import tempfile
from pathlib import Path

from tunewright import load_config, prepare, train


def main() -> None:
    """Train and tell."""
    given = [word for word in sys.argv[1:] if word != "--set"]
    with tempfile.TemporaryDirectory() as folder:
        config = load_config("preset:demo", [f"output_dir={Path(folder) / 'run'}", *given])
        made = train(config, prepare(config))
    facts = made.facts
    share = facts["checkpoint_seconds"] / facts["seconds"]
    names = ("steps", "seconds", "checkpoint_seconds")
    print(json.dumps({name: facts[name] for name in names} | {"share": round(share, 4)}))


if __name__ == "__main__":
    main()
