"""TRL's averages in the making: entropy and accuracy, each by its tokens."""

from collections.abc import Mapping, MutableMapping, Sequence

WEIGHTED = ("entropy", "mean_token_accuracy")
"""What TRL averages over batches without regard to their size; here each counts by its tokens."""
TOKENS = "tokens"
"""Name of their weights beside TRL's averages."""
Entries = MutableMapping[str, list[float]]


def kept(entries: Entries) -> dict[str, list[float]]:
    """Return copies; a name that is looked up would make an empty entry."""
    return {name: list(entries.get(name, ())) for name in (*WEIGHTED, TOKENS)}


def put_back(entries: Entries, found: Mapping[str, Sequence[float]]) -> None:
    """Put copies in place of what is there."""
    for name, values in found.items():
        entries.pop(name, None)
        if values:
            entries[name] = list(values)


def add(entries: Entries, *, entropy: float, correct: float, tokens: int) -> None:
    """Add what a batch came to: sums over its label tokens, and their number."""
    values = (entropy / max(1, tokens), correct / max(1, tokens), tokens)
    for name, value in zip((*WEIGHTED, TOKENS), values, strict=True):
        entries.setdefault(name, []).append(value)


def weigh(entries: Entries) -> None:
    """Make one entry of all those of an average, by the tokens of each."""
    weights = entries.pop(TOKENS, [])
    for name in WEIGHTED:
        if values := entries.pop(name, []):
            summed = sum(w * value for w, value in zip(weights, values, strict=True))
            entries[name] = [summed / max(1, sum(weights))]
