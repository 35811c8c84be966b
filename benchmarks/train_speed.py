"""Time the train stage on the bundled sample: tokens a second, time to the first step, peak memory.

    python benchmarks/train_speed.py [--set KEY=VALUE ...]

Logical tokens only: padding is not counted. Prints JSON, with the memory that the plan predicted.
"""

import argparse
import json
import platform
import resource
import tempfile
import time

from tunewright import load_config, plan, prepare, train


class Clock:
    """Listener that notes when steps end."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """Nothing to note."""

    def said(self, text: str) -> None:
        """Nothing to note."""

    def advanced(self, done: int, detail: str) -> None:
        """Note the first time that a step is reported."""
        self.ends.setdefault(done, time.perf_counter())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fixed = [
            f"output_dir={folder}",
            "train.num_train_epochs=2",
            "train.early_stopping_patience=null",
        ]
        config = load_config("preset:demo", [*fixed, "train.eval_steps=1000", *args.overrides])
        dataset = prepare(config)
        planned = plan(config, dataset).facts
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clock, start = Clock(), time.perf_counter()
        train(config, dataset, listener=clock)
    steps = sorted(step for step in clock.ends if step > 0)
    first, last = steps[0], steps[-1]
    seconds = clock.ends[last] - clock.ends[first]
    tokens = planned["tokens_an_epoch"] * config.train.num_train_epochs * (last - first) / last
    print(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {planned['device']}",
                "tokens_a_second": round(tokens / seconds),
                "seconds_to_first_step": round(clock.ends[first] - start, 1),
                "peak_memory_grown_mb": round(
                    (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
                ),
                "planned_memory_mb": round(planned["memory_bytes"]["total"] / 1e6),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
