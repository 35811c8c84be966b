"""Which techniques are used, each with its reason and what it should gain. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tunewright.accel.choices import Choice
from tunewright.accel.layout import IGNORED, Row, buckets, passes

Wanted = Mapping[str, bool | Literal["auto"]]
"""Of each technique whether it is asked for; auto: where it gains."""
KERNELS = ("liger_kernel", "torch_compile")
TECHNIQUES = (
    *("label_only_head", "packing", "length_bucketing", "shared_prefix", "fused_lora"),
    *KERNELS,
)
TOKENS = "tokens_a_pass"
WORTHWHILE = 1.02
"""A gain below it is not worth another way of running the same rows."""


@dataclass(frozen=True)
class Ways:
    """How the rows of an optimizer step go through the model.

    Attributes:
        label_only_head: The output head is computed where there is a label, nowhere else.
        packing: Rows lie end to end without padding, and none sees another.
        length_bucketing: Rows of like length are padded together; where they are not packed.
        shared_prefix: Equal beginnings of rows run once.
        fused_lora: A linear and its adapter are one operation.
        tokens_a_pass: Positions of a pass at most.
        rows_a_pass: Rows of a padded pass, without bucketing.
        selective: Of what is recomputed, the products of linears are kept.
        liger_kernel: Norms and gates run by Liger's kernels, where they prove faster.
        torch_compile: By kernels that torch compiles.
    """

    label_only_head: bool
    packing: bool
    length_bucketing: bool
    shared_prefix: bool
    fused_lora: bool
    tokens_a_pass: int
    rows_a_pass: int
    selective: bool = False
    liger_kernel: bool = False
    torch_compile: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing of it is used."""
        ways = (self.label_only_head, self.packing, self.length_bucketing, self.fused_lora)
        return not any((*ways, self.kernels))

    @property
    def kernels(self) -> bool:
        """Whether norms and gates run by other kernels."""
        return self.liger_kernel or self.torch_compile


@dataclass(frozen=True)
class Work:
    """Positions of some optimizer steps, run in each way.

    Attributes:
        tokens: Of the rows.
        labels: Those with a label.
        padded: Run in the plain path.
        bucketed: Run with length bucketing.
        shared: Run with packing and shared beginnings.
    """

    tokens: int
    labels: int
    padded: int
    bucketed: int
    shared: int


def work_of(steps: Sequence[Sequence[Row]], *, rows_a_pass: int, tokens_a_pass: int) -> Work:
    """Return what optimizer steps come to.

    Args:
        steps: Rows of each, in the order in which the plain path runs them.
        rows_a_pass: Of the plain path.
        tokens_a_pass: Of the others, at most.
    """
    padded = bucketed = shared = 0
    for rows in steps:
        lengths = [len(row.tokens) for row in rows]
        for start in range(0, len(rows), rows_a_pass):
            batch = lengths[start : start + rows_a_pass]
            padded += len(batch) * max(batch)
        bucketed += sum(
            len(group) * max(lengths[row] for row in group)
            for group in buckets(lengths, most_tokens=tokens_a_pass, pass_costs=0)
        )
        shared += passes(rows, sharing=True, most_tokens=tokens_a_pass).executed
    every = [row for rows in steps for row in rows]
    labels = sum(label != IGNORED for row in every for label in row.labels[1:])
    return Work(sum(len(row.tokens) for row in every), labels, padded, bucketed, shared)


def techniques(
    wanted: Wanted,
    work: Work,
    obstacles: Mapping[str, str],
    *,
    layers: float,
    head: float,
) -> tuple[list[Choice], float]:
    """Return the choice of each technique, and what all of them should gain.

    The gain is counted in floating point operations, one technique after the other.

    Args:
        wanted: By technique.
        work: Of a sample of the steps.
        obstacles: Why a technique cannot be used here, by its name.
        layers: Operations of all layers for a position, forward and backward.
        head: Operations of the output head for a position, forward and backward.

    Returns:
        The choices, `on` or `off`; and how many times as fast a step should be as in the plain path.
    """
    positions, heads = work.padded, work.padded
    plain = last = positions * layers + heads * head
    used: dict[str, bool] = {}
    found: list[Choice] = []
    figures = {
        "label_only_head": (lambda: positions, work.labels, _of_labels(work)),
        "packing": (lambda: work.tokens, work.tokens, _of_padding(work.padded, work.tokens)),
        "length_bucketing": (
            lambda: work.bucketed,
            work.bucketed,
            _of_padding(work.padded, work.bucketed),
        ),
        "shared_prefix": (lambda: work.shared, work.shared, _of_sharing(work)),
    }
    for name, (ran, headed, why) in figures.items():
        reason = _against(name, wanted, {**obstacles, **_among(name, used)})
        after_heads = heads if used.get("label_only_head") else headed
        gain = last / (ran() * layers + after_heads * head)
        if reason is None and name == "shared_prefix" and wanted[name] == "auto":
            reason = (
                None if gain >= WORTHWHILE else "equal beginnings of rows would save less than 2 %"
            )
        used[name] = reason is None
        if reason is None:
            positions, heads, last = ran(), after_heads, last / gain
            reason = f"it makes a step {gain:.2f} times as fast: {why}"
        found.append(Choice(name, "on" if used[name] else "off", reason))
    against = _against("fused_lora", wanted, obstacles)
    reason = against or "it is one operation in place of five"
    found.append(Choice("fused_lora", "off" if against else "on", reason))
    return [*found, *_kernels(wanted, obstacles)], plain / last


def _kernels(wanted: Wanted, obstacles: Mapping[str, str]) -> list[Choice]:
    """Return whose kernels norms and gates run by: the gain is measured, not counted."""
    liger, compiled = (_against(name, wanted, obstacles) for name in KERNELS)
    if liger is None:
        compiled = compiled or "Liger's kernels do it"
    elif wanted["torch_compile"] == "auto":
        compiled = (
            compiled
            or "compiling takes longer than most runs gain; `--set accel.torch_compile=true` has it tried"
        )
    reasons = dict(zip(KERNELS, (liger, compiled), strict=True))
    return [
        Choice(
            name,
            "off" if why else "on",
            why
            or "the first rows are timed with it and without, and it stays on only where it is faster",
        )
        for name, why in reasons.items()
    ]


def _against(name: str, wanted: Wanted, obstacles: Mapping[str, str]) -> str | None:
    return f"asked for in accel.{name}" if wanted[name] is False else obstacles.get(name)


def _among(name: str, used: Mapping[str, bool]) -> dict[str, str]:
    """Return what of the techniques before stands against one."""
    if name == "length_bucketing" and used["packing"]:
        return {name: "packed rows have no padding"}
    if name == "shared_prefix" and not used["packing"]:
        return {name: "it needs packing"}
    return {}


def _of_labels(work: Work) -> str:
    return f"{work.labels / work.padded:.0%} of the positions have a label"


def _of_padding(before: int, after: int) -> str:
    return f"{1 - after / before:.0%} of the positions would be padding"


def _of_sharing(work: Work) -> str:
    return f"{1 - work.shared / work.tokens:.0%} of the tokens are equal beginnings"
