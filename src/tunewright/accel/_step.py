"""Runs the rows of an optimizer step: packed or padded, the head where there are labels."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tunewright.accel import _attention
from tunewright.accel._head import Sums, head_loss, sums_of
from tunewright.accel._kernels import Kernels, compiled, of_liger
from tunewright.accel._lora import FusedLora
from tunewright.accel.layout import IGNORED, Piece, Row, buckets, executed, passes
from tunewright.accel.techniques import Ways

PASS_COSTS = 48
"""What one more pass costs, in tokens: starting its operations, and reading the weights once more."""


@dataclass(frozen=True)
class Totals:
    """What the rows of a step came to.

    Attributes:
        loss: Cross entropy summed over label tokens, in nats.
        entropy: Of the predicted distributions, summed likewise.
        correct: Label tokens that had the highest logit.
        labels: Label tokens.
        tokens: Tokens of the rows.
        executed: Positions that went through the model.
    """

    loss: float
    entropy: float
    correct: int
    labels: int
    tokens: int
    executed: int


class Steps:
    """Runs rows through a model with an adapter; see `Ways`."""

    def __init__(self, model: PeftModel, ways: Ways) -> None:
        """Take the model, which knows the attention of pieces from here on.

        Args:
            model: On its device.
            ways: How.
        """
        inner = model.get_base_model()
        if not isinstance(inner, PreTrainedModel):
            raise TypeError(f"expected a model of Transformers, got {type(inner).__name__}")
        head = inner.get_output_embeddings()
        if head is None:
            raise TypeError("the model has no output head")
        self._model, self._head_module, self._ways = inner, head, ways
        self._fused = FusedLora(model, apart=ways.selective) if ways.fused_lora else None
        self._kernels: Kernels | None = None
        if ways.kernels:
            self._kernels = Kernels(model, of_liger if ways.liger_kernel else compiled)
        if ways.packing:
            _attention.register()
            inner.set_attn_implementation(_attention.NAME)

    @contextmanager
    def plain(self) -> Generator[None]:
        """Let the model itself be what it was, to be compared with."""
        kernels = self.kernels
        self._set(fused=False, kernels=False)
        try:
            yield
        finally:
            self._set(fused=True, kernels=kernels)

    def leave(self) -> None:
        """Let the model itself be what it was, for good."""
        self._set(fused=False, kernels=False)

    @property
    def kernels(self) -> bool:
        """Whether norms and gates run by other kernels; not before it is set."""
        return self._kernels is not None and self._kernels.on

    @kernels.setter
    def kernels(self, on: bool) -> None:
        if self._kernels is not None:
            self._kernels.on = on

    def _set(self, *, fused: bool, kernels: bool) -> None:
        self.kernels = kernels
        if self._fused is not None:
            self._fused.on = fused

    def train(
        self,
        rows: Sequence[Row],
        labels: int,
        *,
        most_rows: int | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> Totals:
        """Add the gradient of the mean loss to the parameters; dropout is as the model's mode says.

        Args:
            rows: Of an optimizer step.
            labels: Label tokens of the whole step, which the loss is divided by.
            most_rows: Of a pass.
            between: Called before and after each backward pass.

        Returns:
            Sums over the rows.
        """
        return self._run(rows, most_rows, lambda sums: _backward(sums, labels, between))

    def measure(self, rows: Sequence[Row], *, most_rows: int | None = None) -> Totals:
        """Return the sums over rows, without gradients."""
        with torch.no_grad():
            return self._run(rows, most_rows, lambda _: None)

    def _run(
        self, rows: Sequence[Row], most_rows: int | None, each: Callable[[Sums], None]
    ) -> Totals:
        found: list[tuple[float, float, int, int]] = [(0.0, 0.0, 0, 0)]
        ran = 0
        for sums, positions in self._passes(rows, most_rows):
            each(sums)
            ran += positions
            found.append(
                (float(sums.loss.detach()), float(sums.entropy), int(sums.correct), sums.tokens)
            )
        loss, entropy, correct, labels = (sum(each) for each in zip(*found, strict=True))
        tokens = sum(len(row.tokens) for row in rows)
        return Totals(loss, entropy, int(correct), int(labels), tokens, ran)

    def _passes(self, rows: Sequence[Row], most_rows: int | None) -> Iterator[tuple[Sums, int]]:
        """Give what each pass comes to, and the positions in it."""
        most = self._ways.tokens_a_pass
        if self._ways.packing:
            sharing = self._ways.shared_prefix
            laid = passes(rows, sharing=sharing, most_tokens=most, most_rows=most_rows)
            held = None if laid.held is None else self._hold(laid.held)
            ran = held.length if held else 0
            for part in laid.passes:
                yield self._packed(part, held), ran + executed(part)
                ran = 0
            if held:
                held.backward()
            return
        lengths = [len(row.tokens) for row in rows]
        each = most_rows or self._ways.rows_a_pass
        if self._ways.length_bucketing:
            groups = buckets(lengths, most_tokens=most, most_rows=most_rows, pass_costs=PASS_COSTS)
        else:
            groups = [list(range(len(rows)))[i : i + each] for i in range(0, len(rows), each)]
        for group in groups:
            longest = max(lengths[row] for row in group)
            yield self._padded([rows[row] for row in group], longest), longest * len(group)

    def _hold(self, piece: Piece) -> _attention.Held:
        """Run what all rows begin with; nothing but its keys and values is looked at afterwards."""
        held = _attention.Held(len(piece.tokens))
        self._laid([piece], _attention.Pieces([piece], self._model.device, keeps=held))
        return held

    def _packed(self, laid: Sequence[Piece], held: _attention.Held | None) -> Sums:
        targets = torch.tensor([target for piece in laid for target in piece.targets])
        pieces = _attention.Pieces(laid, self._model.device, held=held)
        return self._head(self._laid(laid, pieces), targets)

    def _laid(self, laid: Sequence[Piece], pieces: _attention.Pieces) -> torch.Tensor:
        """Return the hidden states of a pass."""
        device = self._model.device
        ids = torch.tensor([token for piece in laid for token in piece.tokens], device=device)
        positions = torch.cat(
            [torch.arange(p.start, p.start + len(p.tokens), device=device) for p in laid]
        )
        return self._hidden(
            input_ids=ids[None],
            position_ids=positions[None],
            # Of four dimensions it is taken as it is: none is made of the size of the pass squared.
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            pieces=pieces,
        )

    def _padded(self, rows: Sequence[Row], longest: int) -> Sums:
        ids, mask, targets = padded(rows, longest)
        device = self._model.device
        hidden = self._hidden(input_ids=ids.to(device), attention_mask=mask.to(device))
        return self._head(hidden, targets.flatten())

    def _hidden(self, **inputs: object) -> torch.Tensor:
        """Return the hidden states before the head, positions by width."""
        found = self._model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        return found.reshape(-1, found.shape[-1])

    def _head(self, hidden: torch.Tensor, targets: torch.Tensor) -> Sums:
        head = self._head_module
        where = (targets != IGNORED).nonzero()[:, 0]
        labels, at = targets[where].to(hidden.device), where.to(hidden.device)
        if self._ways.label_only_head:
            return head_loss(head, hidden.index_select(0, at), labels)
        return sums_of(head(hidden).float().index_select(0, at), labels)


def padded(rows: Sequence[Row], longest: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens, mask and targets of rows, each (rows, longest), filled up on the right."""
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    targets = torch.full_like(ids, IGNORED)
    for at, row in enumerate(rows):
        ids[at, : len(row.tokens)] = torch.as_tensor(row.tokens)
        targets[at, : len(row.tokens) - 1] = torch.as_tensor(row.labels[1:])
    lengths = torch.tensor([len(row.tokens) for row in rows])
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    return ids, mask, targets


def _backward(sums: Sums, labels: int, between: Callable[[], None]) -> None:
    between()
    if sums.loss.requires_grad:
        (sums.loss / labels).backward()
    between()
