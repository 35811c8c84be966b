"""From the times of rounds to figures and a table. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from speed.rows import Work

from tunewright.counting import counted

REFUSED, MEASURED = "refused", "measured"


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of several rounds."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, lowest and highest."""
    return Spread(median(values), min(values), max(values))


@dataclass(frozen=True)
class Round:
    """One process of a contender, less its first step.

    Attributes:
        seconds: On the wall.
        busy: Of the processor, all threads.
        executed: Tokens that went through the model.
        cold_start: Seconds from the start of the process to the end of the first step.
        memory: Peak resident bytes.
    """

    seconds: float
    busy: float
    executed: int
    cold_start: float
    memory: int


def round_of(told: Mapping[str, Any]) -> Round:
    """Return the figures of what a worker has told; the first step of each training is a warm-up."""

    def grown(name: str) -> float:
        return sum(course[name][-1] - course[name][1] for course in told["courses"])

    return Round(
        seconds=grown("ends"),
        busy=grown("busy"),
        executed=int(grown("executed")),
        cold_start=told["cold_start_seconds"],
        memory=told["peak_memory_bytes"],
    )


def needed_flops(shape: Mapping[str, int], work: Work, rank: int) -> float:
    """Return the floating point operations that LoRA training of this work needs at least.

    Forward and gradient of activations, 4 a weight and token, the head at labels only; 6 a weight of the adapter;
    causal attention. A prefix that rows share counts in every row, so that who runs it once can be over this limit.
    """
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    heads = shape["num_attention_heads"] * shape["head_dim"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]
    linears = [(width, heads), (width, keys), (width, keys), (heads, width)]
    linears += [(width, inner), (width, inner), (inner, width)]
    weights = shape["num_hidden_layers"] * sum(a * b for a, b in linears)
    lora = shape["num_hidden_layers"] * sum(rank * (a + b) for a, b in linears)
    head = shape["vocab_size"] * width
    attention = 6 * shape["num_hidden_layers"] * heads * work.squares
    return (4 * weights + 6 * lora) * work.tokens + 4 * head * work.labels + attention


def summary(rounds: Sequence[Round], work: Work, flops: float, gflops: float) -> dict[str, Any]:
    """Return the figures of a contender, as JSON values.

    Args:
        rounds: At least one.
        work: Of the steps that were timed.
        flops: What they need.
        gflops: 1e9 floating point operations a second of a matrix product on this machine.
    """
    speeds = {
        "tokens_a_second": spread([work.tokens / one.seconds for one in rounds]),
        "tokens_a_processor_second": spread([work.tokens / one.busy for one in rounds]),
        "labels_a_second": spread([work.labels / one.seconds for one in rounds]),
        "executed_tokens_a_second": spread([one.executed / one.seconds for one in rounds]),
        "cold_start_seconds": spread([one.cold_start for one in rounds]),
        "peak_memory_bytes": spread([float(one.memory) for one in rounds]),
        "share_of_limit": spread([flops / gflops / 1e9 / one.seconds for one in rounds]),
    }
    executed = median(one.executed for one in rounds)
    return {
        "status": MEASURED,
        **{name: asdict(value) for name, value in speeds.items()},
        "executed_share": executed / work.tokens,
        "rounds": [asdict(one) for one in rounds],
    }


def table(results: Sequence[Mapping[str, Any]], *, own: str) -> str:
    """Return the results as Markdown, a table for each shape and set.

    Args:
        results: Of each shape and set, as `train_speed.py` writes them.
        own: Name of the contender that the others are held against.
    """
    return "\n\n".join(_one(result, own) for result in results)


def _one(result: Mapping[str, Any], own: str) -> str:
    found: Mapping[str, Any] = result["contenders"]
    mine = found.get(own, {}).get("tokens_a_second", {}).get("median")
    lines = [
        f"**{result['shape']}, set {result['set']}**: {counted(result['steps'], 'step')} of "
        f"{counted(result.get('rows_a_step', 8), 'row')} in {counted(result['rounds'], 'round')}, "
        f"{result['tokens']:,} tokens ({result['labels']:,} labels) a round; {result['dtype']}, "
        f"{result['threads']} threads, {result['gflops']:.0f} GFLOP/s.",
        "",
        "| contender | tokens/s | lowest to highest | Tunewright is | tokens a processor second | labels/s "
        "| executed of logical | peak memory | first step after | of the limit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, one, mine) for name, one in found.items() if one["status"] == MEASURED]
    refused = [
        f"* {name}: no figure. {one['reason']}"
        for name, one in found.items()
        if one["status"] == REFUSED
    ]
    return "\n".join(lines + ([""] if refused else []) + refused)


def _row(name: str, one: Mapping[str, Any], mine: float | None) -> str:
    speed = one["tokens_a_second"]
    cells = [
        name,
        f"{speed['median']:,.0f}",
        f"{speed['low']:,.0f} to {speed['high']:,.0f}",
        f"{mine / speed['median']:.2f}x" if mine else "",
        f"{one['tokens_a_processor_second']['median']:,.0f}",
        f"{one['labels_a_second']['median']:,.0f}",
        f"{one['executed_share']:.2f}",
        f"{one['peak_memory_bytes']['median'] / 1e6:,.0f} MB",
        f"{one['cold_start_seconds']['median']:.1f} s",
        f"{one['share_of_limit']['median']:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def filled(page: str, text: str, name: str) -> str:
    """Return a page with this text between the lines `<!-- name:start -->` and `<!-- name:end -->`.

    Raises:
        ValueError: The page has no such lines.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no lines {start} and {end}")
    return f"{before}{start}\n{text}\n{end}{after}"
