"""Speed of LoRA training against peers: the same model, adapter, rows and optimizer, parity first.

    python benchmarks/train_speed.py --shape small --sets A0,A100 [--only ours,trl,trl-best] [--docs docs/performance.md]

Sets: A0, A30, A100, short rows with a shared prefix of so many tokens; B, long chunks; C, 16 adapters on 100 rows
each. A step has 8 rows. Every contender runs in a process of its own, from the same files. First each is held
against plain Transformers: loss and gradient norm of step one, losses of all steps, what became of the adapter. Who
differs gets no figure. Then they take turns for some rounds, a fresh process each; the first step is not counted.
`--plant` adds a contender whose learning rate is 5 % off, which has to be refused.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from speed.bench import LEARNING_RATE, Bench, measured, say
from speed.contenders import CONTENDERS, OWN, PLANTED, planted
from speed.figures import REFUSED, filled, table
from speed.machine import CACHE, machine, several
from speed.parity import TOLERANCES
from speed.plots import draw
from speed.processes import Limits, environment, run
from speed.rows import ROWS, ROWS_A_STEP, SETS, SHAPES, folder_of

MEMORY_SHARE = 0.85
MEASURE = (
    "import sys, torch; from tunewright.accel import measure_speeds; torch.set_num_threads(int(sys.argv[1])); "
    "speeds = measure_speeds('cuda' if torch.cuda.is_available() else 'cpu'); "
    "print(getattr(speeds, sys.argv[2]))"
)


def prepared(args: argparse.Namespace, shape: str, limits: Limits, scratch: Path) -> list[Bench]:
    """Make what is missing of the material of a shape and return its sets."""
    folder = args.cache / "material" / f"{shape}-{args.dtype}"
    script = Path(__file__).parent / "speed" / "material.py"
    command = [sys.executable, str(script), "--folder", str(folder), "--shape", shape]
    command += ["--dtype", args.dtype, "--sets", ",".join(args.sets), "--rows", str(ROWS)]
    run(command, scratch / "material", limits, environment(args.threads, own=True))
    base, adapter = folder / "base", folder / "adapter"
    return [
        Bench(
            shape,
            name,
            base,
            adapter,
            folder / folder_of(name, ROWS),
            scratch / shape / name,
            args,
            limits,
        )
        for name in args.sets
    ]


def speed_of_products(args: argparse.Namespace, limits: Limits, scratch: Path) -> float:
    """Return 1e9 floating point operations a second of a matrix product; the best of three processes."""
    command = [sys.executable, "-c", MEASURE, str(args.threads), args.dtype]
    variables = environment(args.threads, own=True)
    return max(float(run(command, scratch / "speed", limits, variables)[0]) for _ in range(3))


def options() -> argparse.Namespace:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--shape", type=several(list(SHAPES)), default=["small"], help="small, medium, qwen3-0.6b"
    )
    parser.add_argument("--sets", type=several(SETS), default=["A0", "A100"], help=", ".join(SETS))
    parser.add_argument(
        "--rows-a-step", type=int, default=8, help="fewer where plain Transformers lacks memory"
    )
    parser.add_argument("--steps", type=int, default=6, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each contender")
    parser.add_argument(
        "--parity-steps", type=int, help="unset: 20 where that is cheap, else as many as are timed"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--dtype", choices=list(TOLERANCES), default="float32", help="of the base, for all"
    )
    parser.add_argument(
        "--only",
        type=several(list(CONTENDERS)),
        default=list(CONTENDERS),
        help=", ".join(CONTENDERS),
    )
    parser.add_argument("--plant", action="store_true", help="add one that is wrong")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of a process")
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments and models")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--after", type=Path, help="figures of an earlier run on this machine, to go before these"
    )
    parser.add_argument("--docs", type=Path, help="put table and plot into this page")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = options()
    os.environ[ROWS_A_STEP] = str(args.rows_a_step)
    contenders = {name: CONTENDERS[name] for name in args.only}
    if args.plant:
        contenders[PLANTED] = planted(LEARNING_RATE)
    limits = Limits(int(MEMORY_SHARE * psutil.virtual_memory().available), args.timeout)
    results = earlier(args.after) if args.after else []
    with tempfile.TemporaryDirectory(prefix="train-speed-") as name:
        scratch = Path(name)
        gflops = speed_of_products(args, limits, scratch)
        for shape in args.shape:
            for bench in prepared(args, shape, limits, scratch):
                say(f"{shape}, {bench.name}")
                results.append(measured(bench, contenders, gflops))
                write(args, results)
    if args.plant and any(one["contenders"][PLANTED]["status"] != REFUSED for one in results):
        raise SystemExit("the contender that was planted as wrong has passed")


def earlier(file: Path) -> list[dict[str, Any]]:
    """Return the results of an earlier run, which must be of this machine."""
    given = json.loads(file.read_text(encoding="utf-8"))
    if given["machine"] != machine():
        raise SystemExit(f"{file} is of another machine: {given['machine']}")
    return given["results"]


def write(args: argparse.Namespace, results: Sequence[Mapping[str, Any]]) -> None:
    """Write what is there so far; a run that is ended has not measured for nothing."""
    text = f"Measured on {machine()}.\n\n{table(results, own=OWN)}"
    if args.json:
        given = json.dumps({"machine": machine(), "results": results}, indent=1)
        args.json.write_text(given + "\n", encoding="utf-8")
    if args.docs:
        plot = args.docs.with_name("train-speed.svg")
        draw(results, plot)
        page = args.docs.read_text(encoding="utf-8")
        text_with_plot = f"{text}\n\n![Tokens a second of each contender]({plot.name})"
        args.docs.write_text(filled(page, text_with_plot, "train-speed"), encoding="utf-8")
    print(text, flush=True)


if __name__ == "__main__":
    main()
