"""The card of a model: README.md with the metadata that the Hub reads and a page that people read. Pure.

Source: the Hub's documentation of model cards; `model-index` as huggingface_hub's `EvalResult` reads it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from tunewright.config.text import dumped
from tunewright.counting import counted
from tunewright.publish.hub.markdown import code, course_plot, inline, items, table
from tunewright.publish.hub.model_facts import ModelFacts
from tunewright.publish.hub.model_usage import usage

_WHAT = {
    "adapter": "A LoRA adapter",
    "merged": "A model with its LoRA adapter merged in, in 16 bits",
    "gguf": "GGUF files of a model with its LoRA adapter merged in",
    "version": "A LoRA adapter, and GGUF files of the model with it merged in",
}
_LIBRARY = {"adapter": "peft", "version": "peft", "merged": "transformers", "gguf": "gguf"}
_RELATED = {
    "adapter": "The adapter",
    "merged": "The merged model",
    "gguf": "GGUF files",
    "dataset": "The dataset",
}
FEW_ROWS = 200
"""Training rows below which the card says that they are few."""


def model_card(facts: ModelFacts) -> str:
    """Return the card: YAML between two lines of dashes, then Markdown."""
    parts = [
        f"# {inline(facts.title)}",
        *_warning(facts),
        *_what(facts),
        *_verdict(facts),
        *usage(facts),
        *_data(facts),
        *_training(facts),
        *_evaluation(facts),
        *_parity(facts),
        *_gates(facts),
        *_limits(facts),
        *_licence(facts),
        _made(facts),
    ]
    return f"---\n{dumped(metadata(facts), width=1000)}---\n\n" + "\n\n".join(parts) + "\n"


def metadata(facts: ModelFacts) -> dict[str, Any]:
    """Return what the Hub reads: no key for what is not known."""
    front: dict[str, Any] = {}
    if facts.license:
        front["license"] = facts.license
    if facts.languages:
        front["language"] = list(facts.languages)
    front["library_name"] = _LIBRARY[facts.kind]
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["tunewright", "lora", "sft", *(["gguf"] if facts.kind == "gguf" else [])]
    front |= _parent(facts)
    if "dataset" in facts.related:
        front["datasets"] = [facts.related["dataset"]]
    results = _results(facts)
    return front | ({"model-index": results} if results else {})


def _parent(facts: ModelFacts) -> dict[str, Any]:
    """Return what the model is made of, if the Hub knows it; GGUF files are made of the merged model."""
    if facts.kind == "gguf" and "merged" in facts.related:
        return {"base_model": facts.related["merged"], "base_model_relation": "quantized"}
    if facts.base.hub_id is None:
        return {}
    relation = "adapter" if facts.kind in ("adapter", "version") else "finetune"
    return {"base_model": facts.base.hub_id, "base_model_relation": relation}


def _results(facts: ModelFacts) -> list[dict[str, Any]]:
    found = facts.evaluation or {}
    metrics: list[dict[str, Any]] = []
    perplexity = _perplexity(found, "heldout")
    if perplexity:
        metrics.append(_metric("perplexity", "Perplexity on held-out rows", perplexity["tuned"]))
    score: Mapping[str, Any] = found.get("transfer_score") or {}
    if _is_number(score.get("score")):
        metrics.append(_metric("transfer_score", "Transfer score", {"value": score["score"]}))
    metrics = [metric for metric in metrics if _is_number(metric["value"])]
    if not metrics:
        return []
    # The Hub asks for a data set; one that is not on it has a name only.
    dataset = {"type": facts.related.get("dataset", "held-out"), "name": "held-out rows"}
    task = {"type": "text-generation", "name": "Text Generation"}
    result = {"task": task, "dataset": dataset, "metrics": metrics}
    return [{"name": facts.title.rpartition("/")[2], "results": [result]}]


def _metric(kind: str, name: str, estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "name": name, "value": estimate["value"]}


def _warning(facts: ModelFacts) -> list[str]:
    if facts.forced is None:
        return []
    lines = ["> **Passed on by force.** Tunewright's gates refused this model:", ">"]
    lines += [f"> * {inline(line)}" for line in facts.forced.refused]
    why = inline(facts.forced.reason) if facts.forced.reason else "none was given"
    return ["\n".join([*lines, ">", f"> Its owner's reason: {why}."])]


def _what(facts: ModelFacts) -> list[str]:
    base = facts.base
    name = code(base.name)
    if base.hub_id:
        name = f"[{inline(base.hub_id)}](https://huggingface.co/{base.hub_id})"
        name += f" (revision {code(base.revision)})" if base.revision else ""
    elif base.name != "tunewright/tiny":
        name += ", a model that is not on the Hub"
    else:
        name += ", the small base that Tunewright brings"
    lines = [f"{_WHAT[facts.kind]}, tuned on text of its owner. The base is {name}."]
    others = [
        f"{_RELATED[kind]}: [{inline(repo)}]({_address(kind, repo)})"
        for kind, repo in facts.related.items()
        if kind != facts.kind
    ]
    if facts.report:
        others.append("[The report of the run](report.html), with answers side by side")
    return [*lines, *([items(others)] if others else [])]


def _address(kind: str, repo: str) -> str:
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _verdict(facts: ModelFacts) -> list[str]:
    if facts.evaluation is None:
        return ["## Verdict", "**Not compared with its base**, so nobody knows if it is better."]
    verdict, sentence = (inline(facts.evaluation.get(k)) for k in ("verdict", "sentence"))
    return ["## Verdict", f"**{verdict or 'unknown'}**. {sentence}".rstrip()]


def _data(facts: ModelFacts) -> list[str]:
    found = facts.dataset
    units = [unit for unit in ("rows", "words", "tokens") if found.get(unit)]
    lines: list[str] = []
    if units:
        sides = {"train": "training", "eval": "held out"}
        rows = [
            (words, *(_count(found[unit].get(side)) for unit in units))
            for side, words in sides.items()
        ]
        heads = [unit if unit == "rows" else f"{unit} of answers" for unit in units]
        lines.append(table(["side", *heads], rows, numbers=len(units)))
    if found.get("files"):
        lines.append(f"Made of {counted(found['files'], 'file')}, split by source.")
    if found.get("digest"):
        lines.append(f"SHA-256 of the dataset's manifest: `{found['digest']}`.")
    return ["## Data", *lines] if lines else []


def _training(facts: ModelFacts) -> list[str]:
    lines = ["## Training"]
    rows = [(f"`{name}`", code(_plain(value))) for name, value in facts.settings.items()]
    if rows:
        lines.append(table(["option", "value"], rows))
    chosen = [
        f"{code(one.get('name'))} is {code(one.get('value'))}: {inline(one.get('reason'))}"
        for one in facts.choices
    ]
    if chosen:
        lines += ["Chosen for the machine it was trained on:", items(chosen)]
    points = [point for point in facts.eval_losses if math.isfinite(point[1])]
    if points:
        best = f"; the adapter is of step {facts.best_step:,}" if facts.best_step else ""
        lines += [
            f"Loss on held-out rows by step{best}:",
            f"```text\n{course_plot(points)}\n```",
        ]
    trained = [point for point in facts.train_losses if math.isfinite(point[1])]
    if trained:
        lines.append(f"The training loss went from {trained[0][1]:.3f} to {trained[-1][1]:.3f}.")
    return lines if len(lines) > 1 else []


def _evaluation(facts: ModelFacts) -> list[str]:
    found = facts.evaluation
    if found is None:
        return []
    lines = ["## Compared with the base", *_transfer(found)]
    rows = [
        (words, *(_estimate(one, name) for name in ("base", "tuned", "ratio")))
        for words, side in (("held-out rows", "heldout"), ("neutral text", "neutral"))
        if (one := _perplexity(found, side))
    ]
    if rows:
        lines.append(table(["perplexity on", "base", "tuned", "tuned over base"], rows, numbers=3))
        lines.append("Neutral text tells whether the model has lost what its base could do.")
    return [*lines, *_memorisation(found)]


def _transfer(found: Mapping[str, Any]) -> list[str]:
    score: Mapping[str, Any] = found.get("transfer_score") or {}
    if not _is_number(score.get("score")):
        reason = inline(score.get("reason")) or "it was not measured."
        return [f"Transfer score: none, because: {reason}"] if score else []
    ends = [score.get("low"), score.get("high")]
    interval = ""
    if all(map(_is_number, ends)):
        interval = f" (95 % interval {ends[0]:.0f} % to {ends[1]:.0f} %)"
    return [
        f"**Transfer score: {score['score']:.0f} %**{interval}. 0 % writes like the base, 100 % is as "
        "close to the author as the author's own held-out text is."
    ]


def _memorisation(found: Mapping[str, Any]) -> list[str]:
    memory: Mapping[str, Any] = found.get("memorisation") or {}
    if not _is_number(memory.get("longest_words")):
        return []
    shares = [memory.get("copied_share"), memory.get("heldout_copied_share")]
    copied = ""
    if all(map(_is_number, shares)):
        own, held = (f"{100 * float(share or 0):.1f} %" for share in shares)
        copied = (
            f" Of its sequences of eight words {own} are in the training text; of text that it never saw, "
            f"{held}."
        )
    longest = memory["longest_words"]
    return [
        f"Memorisation: the longest copy of training text has {counted(longest, 'word')}.{copied}"
    ]


def _parity(facts: ModelFacts) -> list[str]:
    lines: list[str] = []
    merged = facts.merged
    if merged and _is_number(merged.get("mean_kl")):
        lines.append(
            f"Merged against base with adapter, on {_count(merged.get('tokens'))} held-out tokens: mean KL "
            f"divergence {merged['mean_kl']:.1e} nats, the same next token in "
            f"{100 * merged['top1_agreement']:.1f} %."
        )
        if merged.get("step") not in (None, facts.best_step):
            lines.append(
                f"It is merged from the checkpoint of step {merged['step']:,}, which is not the adapter that "
                "was compared with the base."
            )
    rows = [_parity_row(name, one) for name, one in facts.ggufs.items()]
    if rows:
        columns = ["type", "file", "MB", "mean KL, nats", "same next token", "perplexity"]
        lines.append(table(columns, rows, numbers=4))
        lines.append(
            "Each file against the merged model, computed by llama.cpp. Perplexity is the change on the same "
            "held-out tokens."
        )
    return ["## Proven equal", *lines] if lines else []


def _parity_row(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    ours, theirs = one.get("perplexity"), one.get("merged_perplexity")
    change = f"{100 * (ours / theirs - 1):+.2f} %" if ours and theirs else ""
    return (
        code(name),
        code(one.get("file")),
        f"{one['bytes'] / 1e6:,.1f}" if "bytes" in one else "",
        f"{one['mean_kl']:.1e}" if _is_number(one.get("mean_kl")) else "",
        f"{100 * one['top1_agreement']:.1f} %" if _is_number(one.get("top1_agreement")) else "",
        change,
    )


def _gates(facts: ModelFacts) -> list[str]:
    rows = [
        (stage, *(inline(gate.get(k)) for k in ("gate", "value", "limit")), _passed(gate))
        for stage, gate in facts.gates
    ]
    if not rows:
        return []
    failed = sum(not gate.get("passed") for _, gate in facts.gates)
    said = f"{failed} of {len(rows)} failed." if failed else f"All {len(rows)} passed."
    columns = ["stage", "checked", "found", "limit", "passed"]
    return ["## Checks", said, table(columns, rows)]


def _passed(gate: Mapping[str, Any]) -> str:
    return "yes" if gate.get("passed") else "**no**"


def _limits(facts: ModelFacts) -> list[str]:
    rows = facts.dataset.get("rows", {}).get("train")
    few = isinstance(rows, int) and rows < FEW_ROWS
    lines = [
        "It knows what its base knows, and errs where its base errs. Tuning changes how it writes more than "
        "what it knows.",
        "It was made for prompts like those it was trained on, with the chat template that is in its "
        "tokenizer; with another one it writes nonsense.",
        "The figures above are of this run's held-out text, and of no other task.",
        *(
            [f"It learned from {counted(rows, 'row')} only: figures on so few are uncertain."]
            if few
            else []
        ),
        "Copies of training text were searched for in some answers, not in all that it can give.",
    ]
    return ["## Limits", items(lines)]


def _licence(facts: ModelFacts) -> list[str]:
    if facts.license:
        return ["## Licence", f"{code(facts.license)}; the base's licence holds besides."]
    return [
        "## Licence",
        "**No licence has been chosen yet.** The base's licence holds in any case. To choose: "
        "`--license ID` and push again.",
    ]


def _made(facts: ModelFacts) -> str:
    libraries = {k: v for k, v in facts.libraries.items() if k != "tunewright"}
    named = ", ".join(f"{inline(k)} {inline(v)}" for k, v in libraries.items())
    return f"Made with Tunewright {inline(facts.version)}" + (f", {named}." if named else ".")


def _perplexity(found: Mapping[str, Any], side: str) -> Mapping[str, Any] | None:
    one: Mapping[str, Any] = (found.get("perplexity") or {}).get(side) or {}
    return one if {"base", "tuned", "ratio"} <= one.keys() else None


def _estimate(one: Mapping[str, Any], name: str) -> str:
    estimate = one[name]
    if not all(_is_number(estimate.get(k)) for k in ("value", "low", "high")):
        return _plain(estimate.get("value"))
    return f"{estimate['value']:,.3g} ({estimate['low']:,.3g} to {estimate['high']:,.3g})"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
