"""A publisher in a process of its own, for test_publish.py: `race` or `kill`."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tunewright.artifacts import load_artifact
from tunewright.config.schema import Config, PrepareSection, PublishSection
from tunewright.publish import publish
from tunewright.publish._publish import publish_run  # the body is loaded before the clock starts

__all__ = ["publish_run"]


def publish_once(store: Path, made: Path, run: Path) -> str:
    config = Config(
        name="voice",
        output_dir=str(run),
        prepare=PrepareSection(source="sample:manuscript"),
        publish=PublishSection(store=str(store), agent="writer"),
    )
    adapter, evaluation, exported = (
        load_artifact(made / kind, kind) for kind in ("adapter", "evaluation", "exported")
    )
    return publish(config, adapter, evaluation, exported).facts["version"]


def race(store: Path, made: Path, run: Path, count: int) -> list[str]:
    return [publish_once(store, made, run) for _ in range(count)]


def kill(store: Path, made: Path, run: Path, count: int) -> list[str]:
    """Publish in children that are killed after a random time; return what was acknowledged."""
    begun = time.perf_counter()
    acknowledged = [publish_once(store, made, run)]
    usual_s = time.perf_counter() - begun
    chance = random.Random(0)
    for _ in range(count):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, publish_once(store, made, run).encode())
            os._exit(0)
        os.close(write)
        time.sleep(chance.uniform(0, 1.2 * usual_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged += [text] if (text := os.read(read, 100).decode()) else []
        os.close(read)
    return acknowledged


if __name__ == "__main__":
    action = {"race": race, "kill": kill}[sys.argv[1]]
    result = action(*map(Path, sys.argv[2:5]), int(sys.argv[5]))
    heavy = [name for name in ("torch", "transformers", "numpy") if name in sys.modules]
    sys.stdout.write(json.dumps({"versions": result, "heavy": heavy}))
