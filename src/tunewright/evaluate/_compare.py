"""The comparison: answers, style, markers, memorisation, perplexity, verdict, all into one folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import CompareSection, Config
from tunewright.errors import failure
from tunewright.evaluate._score import Pair, answers, load_pair, row_losses, token_counts
from tunewright.evaluate._style import transfer_score
from tunewright.evaluate.markers import markers
from tunewright.evaluate.memorisation import Overlap, is_copied, overlap
from tunewright.evaluate.perplexity import Perplexity, perplexity
from tunewright.evaluate.style import distinct_share, passages, words_of
from tunewright.evaluate.verdict import Figures, Limits, judge
from tunewright.events import Listener
from tunewright.models._generate import Sampling
from tunewright.models._load import resolve_model
from tunewright.models.chat import Message, messages_of, question_and_answer

MAX_HELDOUT_ROWS = 200
MAX_TRAINING_ROWS = 30
MAX_HELDOUT_WORDS = 20_000
MAX_MARKER_PASSAGES = 500

T = TypeVar("T")


@dataclass(frozen=True)
class _Row:
    messages: list[Message]
    source: str

    @property
    def texts(self) -> list[str]:
        """What the author wrote: the trained text."""
        return [m["content"] for m in self.messages if m["role"] == "assistant"]


@dataclass(frozen=True)
class _Texts:
    """The texts that are compared; scored answers are paired."""

    base: list[str]
    tuned: list[str]
    heldout: list[str]
    training: list[tuple[str, str]]

    @property
    def training_texts(self) -> list[str]:
        return [text for _, text in self.training]


def evaluate(config: Config, dataset: Artifact, adapter: Artifact, listener: Listener) -> Artifact:
    """Do what `compare` says."""
    heldout = _rows(dataset.path / "eval.jsonl")
    training = _rows(dataset.path / "train.jsonl")
    settings = settings_of(config, "evaluation")
    base = resolve_model(config.model.model_name_or_path, config.model.revision)
    parents = {"dataset": dataset, "adapter": adapter}
    path = Path(config.run_dir) / "evaluation"
    with writing(path, "evaluation", settings=settings, parents=parents) as draft:
        pair = load_pair(base, adapter.path)
        samples = _samples(pair, heldout, config.compare, seed=config.seed, listener=listener)
        _write_lines(draft.path / "samples.jsonl", samples)
        scored = [sample for sample in samples if sample["scored"]]
        texts = _Texts(
            base=[sample["base"] for sample in scored],
            tuned=[sample["tuned"] for sample in scored],
            heldout=[text for row in heldout for text in row.texts],
            training=[(row.source, text) for row in training for text in row.texts],
        )
        losses = [
            _perplexity(pair, rows, config, listener)
            for rows in (_spread(heldout, MAX_HELDOUT_ROWS), _spread(training, MAX_TRAINING_ROWS))
        ]
        facts = _judged(texts, losses[0], losses[1], config=config)
        facts["answers"] = _answer_facts(pair, texts, config.compare.max_new_tokens)
        _write_json(draft.path / "markers.json", facts["markers"])
        draft.facts.update(facts)
        listener.said(facts["sentence"])
    return load_artifact(path, "evaluation")


def _rows(file: Path) -> list[_Row]:
    """Return the rows of a JSONL file.

    Raises:
        TunewrightError: E_DATA_EMPTY, there are none. E_DATA_ROW, one is not a conversation.
    """
    rows: list[_Row] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                rows.append(_Row(messages_of(row), str(row.get("source", f"row {number}"))))
            except (ValueError, AttributeError, TypeError) as error:
                raise failure("E_DATA_ROW", f"{error}.", where=f"{file}:{number}") from error
    if not rows:
        raise failure("E_DATA_EMPTY", "There are no rows to compare with.", where=file)
    return rows


def _samples(
    pair: Pair, rows: Sequence[_Row], options: CompareSection, *, seed: int, listener: Listener
) -> list[dict[str, Any]]:
    """Return prompts with answers: from the held-out rows, reused in turn, then the user's own."""
    chosen = _spread(rows, options.num_prompts)
    scored = [chosen[index % len(chosen)] for index in range(options.num_prompts)]
    system = [m for m in rows[0].messages if m["role"] == "system"]
    own = [[*system, Message(role="user", content=prompt)] for prompt in options.prompts]
    asked = [question_and_answer(row.messages) for row in scored]
    prompts = [*(question for question, _ in asked), *own]
    sampling = Sampling(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        batch_size=options.batch_size,
        seed=seed,
    )
    base, tuned = answers(pair, prompts, sampling=sampling, listener=listener)
    authors = [*(answer for _, answer in asked), *(None for _ in own)]
    return [
        {
            "prompt": prompt[-1]["content"],
            "base": base[index],
            "tuned": tuned[index],
            "author": authors[index],
            "scored": index < len(scored),
        }
        for index, prompt in enumerate(prompts)
    ]


def _perplexity(pair: Pair, rows: Sequence[_Row], config: Config, listener: Listener) -> Perplexity:
    losses = row_losses(
        pair,
        [row.messages for row in rows],
        max_length=config.train.max_length,
        listener=listener,
    )
    if not losses:
        raise failure(
            "E_NOTHING_TO_LEARN",
            f"None of {len(rows)} rows has an answer within {config.train.max_length} tokens.",
            where="train.max_length",
        )
    return perplexity(losses, samples=config.compare.bootstrap_samples, seed=config.seed)


def _judged(
    texts: _Texts, heldout: Perplexity, training: Perplexity, *, config: Config
) -> dict[str, Any]:
    """Return the facts: every figure, and the verdict on them."""
    options = config.compare
    copied = overlap(texts.tuned, texts.training)
    shared = overlap(_up_to(texts.heldout, MAX_HELDOUT_WORDS), texts.training)
    limit = max(options.max_copied_words, shared.longest.words)
    kept = [index for index in range(len(texts.tuned)) if not is_copied(copied, index, limit)]
    transfer = transfer_score(
        [texts.base[index] for index in kept],
        [texts.tuned[index] for index in kept],
        heldout=texts.heldout,
        training=texts.training_texts,
        min_words=options.min_words,
        samples=options.bootstrap_samples,
        seed=config.seed,
    )
    excluded = len(texts.tuned) - len(kept)
    author = _matched(texts)
    score = None
    if transfer.score is not None and transfer.low is not None and transfer.high is not None:
        score = (transfer.score, transfer.low, transfer.high)
    verdict = judge(
        Figures(
            score=score,
            copied_words=copied.longest.words,
            heldout_copied_words=shared.longest.words,
            copied_share=copied.share,
            heldout_copied_share=shared.share,
            heldout=heldout,
            training=training,
            distinct=(
                distinct_share(texts.base),
                distinct_share(texts.tuned),
                distinct_share(author),
            ),
        ),
        Limits(
            target_score=options.target_score,
            max_copied_words=options.max_copied_words,
            max_copied_share=options.max_copied_share,
            max_perplexity_ratio=options.max_perplexity_ratio,
        ),
    )
    return {
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "advice": verdict.advice,
        "transfer_score": {**asdict(transfer), "excluded": excluded},
        "markers": [marker.facts() for marker in markers(texts.base, texts.tuned, author)],
        "memorisation": _memorisation(copied, shared, limit, heldout, training),
        "perplexity": {"heldout": heldout.facts(), "training": training.facts()},
        "gates": list(verdict.gates),
    }


def _memorisation(
    copied: Overlap, shared: Overlap, limit: int, heldout: Perplexity, training: Perplexity
) -> dict[str, Any]:
    return {
        "longest_words": copied.longest.words,
        "longest_text": copied.longest.text,
        "longest_source": copied.longest.source,
        "longest_answer": copied.longest.index,
        "limit_words": limit,
        "heldout_longest_words": shared.longest.words,
        "copied_share": copied.share,
        "heldout_copied_share": shared.share,
        "loss_gap": heldout.tuned_loss - training.tuned_loss,
        "base_loss_gap": heldout.base_loss - training.base_loss,
    }


def _answer_facts(pair: Pair, texts: _Texts, max_new_tokens: int) -> dict[str, Any]:
    """Return length, ending and repetition of the scored answers.

    An answer with fewer tokens than the limit has ended by itself. They are counted again from the
    text, which can only be shorter than what was sampled.
    """
    facts: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    for name, side in (("base", texts.base), ("tuned", texts.tuned)):
        tokens = token_counts(pair, side)
        facts[name] = {
            "answers": len(side),
            "mean_words": sum(len(words_of(text)) for text in side) / len(side),
            "mean_tokens": sum(tokens) / len(side),
            "ended_share": sum(n < max_new_tokens for n in tokens) / len(side),
            "distinct_3": distinct_share(side),
            "different_answers": len(set(side)) / len(side),
        }
    return facts


def _matched(texts: _Texts) -> list[str]:
    """Return passages of the author's text as long as the answers are."""
    answered = [*texts.base, *texts.tuned]
    length = max(1, round(sum(len(words_of(text)) for text in answered) / len(answered)))
    own = _spread([*texts.heldout, *texts.training_texts], MAX_MARKER_PASSAGES)
    return _spread([p for text in own for p in passages(text, length)], MAX_MARKER_PASSAGES)


def _up_to(texts: Sequence[str], max_words: int) -> list[str]:
    """Return whole texts from the beginning until there are as many words."""
    result: list[str] = []
    words = 0
    for text in texts:
        result.append(text)
        words += len(words_of(text))
        if words >= max_words:
            break
    return result


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Return all, or of too many, evenly spread ones."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
