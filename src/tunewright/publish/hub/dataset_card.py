"""The card of a dataset: README.md with the metadata that the Hub reads and a page that people read. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.config.text import dumped
from tunewright.counting import counted
from tunewright.publish.hub.markdown import file_name, inline, items, text_plot

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
_SHAPES = {
    "messages": "`messages`: a list of turns with `role` and `content`; the last turn is the answer.",
    "instruction": "`instruction`, `input` (may be empty) and `output`.",
    "prompt": "`prompt` and `completion`; with an empty prompt the completion is plain text.",
    "several": "one of several forms; the columns of the others are null.",
}


@dataclass(frozen=True)
class Split:
    """One side of a dataset.

    Attributes:
        name: `train`, or `validation` for the held-out side, as `datasets` calls it.
        file: Path in the repository.
        rows: Rows.
        words: Words of the answers.
        tokens: Tokens of the answers; None where nobody counted.
        num_bytes: Size in memory.
        file_bytes: Size of the file.
    """

    name: str
    file: str
    rows: int
    words: int
    tokens: int | None
    num_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class DatasetFacts:
    """What the card says.

    Attributes:
        repo_id: `org/name`.
        splits: The sides, training first.
        features: Columns as `datasets` writes them in YAML.
        shape: `messages`, `instruction` or `prompt`; `several`: each row has its own.
        mixed: The sources had several forms.
        json_columns: Columns whose values are JSON text, because their types differ between rows.
        license: Licence id of the Hub; None: not chosen yet.
        languages: ISO 639-1 code to its share of the rows.
        sources: Names of the files that the rows come from.
        split_by: What was kept together when a part was held out, in words.
        lengths: `edges` and `counts` of a histogram of tokens a row; None where nobody counted.
        left_out: What is in no row, and how often.
        notes: What was done to the text, in words.
        template: Chat template that the rows were checked with; None: the base's own.
        gates: Checks with `gate`, `value`, `limit`, `passed`.
        warnings: Code and count of what the check said without refusing.
        digest: SHA-256 of the dataset's manifest.
        version: Version of Tunewright.
    """

    repo_id: str
    splits: Sequence[Split]
    features: Sequence[Mapping[str, Any]]
    shape: str
    version: str
    digest: str
    mixed: bool = False
    json_columns: Sequence[str] = ()
    license: str | None = None
    languages: Mapping[str, float] = field(default_factory=dict[str, float])
    sources: Sequence[str] = ()
    split_by: str = "source and near-duplicate cluster"
    lengths: Mapping[str, Sequence[float]] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: Sequence[str] = ()
    template: str | None = None
    gates: Sequence[Mapping[str, Any]] = ()
    warnings: Mapping[str, int] = field(default_factory=dict[str, int])


def dataset_card(facts: DatasetFacts) -> str:
    """Return the card: YAML between two lines of dashes, then Markdown.

    The held-out side is the split `validation`: the name that `datasets` gives to a part that training
    does not see and that is looked at while one still chooses.

    Source: the Hub's documentation of dataset cards.
    """
    front = dumped(_metadata(facts), width=1000)
    parts = [
        f"# {inline(facts.repo_id)}",
        *_origin(facts),
        *_table(facts),
        *_histogram(facts.lengths),
        *_left_out(facts),
        *_checks(facts),
        *_loading(facts),
        *_licence(facts),
        f"Made with Tunewright {inline(facts.version)}; SHA-256 of the content `{facts.digest}`.",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows."""
    return next((name for limit, name in _SIZES if rows < limit), "n>1B")


def _metadata(facts: DatasetFacts) -> dict[str, Any]:
    front: dict[str, Any] = {"license": facts.license or "unknown"}
    if facts.languages:
        front["language"] = list(facts.languages)
    return front | {
        "task_categories": ["text-generation"],
        "tags": ["tunewright"],
        "size_categories": [size_category(sum(split.rows for split in facts.splits))],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": s.name, "path": s.file} for s in facts.splits],
            }
        ],
        "dataset_info": {
            "features": [dict(feature) for feature in facts.features],
            "splits": [
                {"name": s.name, "num_bytes": s.num_bytes, "num_examples": s.rows}
                for s in facts.splits
            ],
            "download_size": sum(split.file_bytes for split in facts.splits),
            "dataset_size": sum(split.num_bytes for split in facts.splits),
        },
    }


def _origin(facts: DatasetFacts) -> list[str]:
    rows = sum(split.rows for split in facts.splits)
    lines = [f"{counted(rows, 'row')} for supervised fine-tuning of language models."]
    if facts.sources:
        lines += ["## What it is made of", items(map(file_name, facts.sources))]
    if facts.notes:
        lines += ["What was done to the text:", items(map(inline, facts.notes))]
    shape = _SHAPES.get(facts.shape, "")
    form = [f"Each row has {shape} Every other column says where the row comes from."]
    if facts.mixed and facts.shape == "messages":
        form.append("The sources had rows of several forms; all are written as conversations.")
    if facts.json_columns:
        names = ", ".join(f"`{inline(name)}`" for name in facts.json_columns)
        form.append(f"Values of {names} are JSON text, because their types differ between rows.")
    return [*lines, "## Rows", " ".join(form)]


def _table(facts: DatasetFacts) -> list[str]:
    head = "| split | rows | words of answers | tokens of answers |\n|---|---:|---:|---:|"
    lines = [
        f"| `{s.name}` | {s.rows:,} | {s.words:,} | {'' if s.tokens is None else f'{s.tokens:,}'} |"
        for s in facts.splits
    ]
    held = (
        f"The held-out side is the split `validation`. The split is by {inline(facts.split_by)}: what "
        "belongs together is on one side, so that a good figure on `validation` is not memory."
    )
    return ["## Splits", "\n".join([head, *lines]), held]


def _histogram(lengths: Mapping[str, Sequence[float]] | None) -> list[str]:
    if not lengths or not lengths.get("counts"):
        return []
    counts = [int(count) for count in lengths["counts"]]
    if max(counts) == 0:
        return []
    return ["## Tokens a row", f"```text\n{text_plot(lengths['edges'], counts)}\n```"]


def _left_out(facts: DatasetFacts) -> list[str]:
    found = [f"{count:,}: {inline(reason)}" for reason, count in facts.left_out.items() if count]
    return ["## Left out", items(found) if found else "Nothing was left out."]


def _checks(facts: DatasetFacts) -> list[str]:
    if not facts.gates:
        return ["## Checks", "The dataset was not checked before the upload."]
    template = "the base's own chat template"
    if facts.template:
        template = f"the chat template `{file_name(facts.template)}`"
    head = "| check | found | asked for | passed |\n|---|---|---|---|"
    lines = [
        f"| {inline(gate.get('gate'))} | {inline(gate.get('value'))} | {inline(gate.get('limit'))} "
        f"| {'yes' if gate.get('passed') else 'no'} |"
        for gate in facts.gates
    ]
    said = [f"{inline(code)}: {counted(count, 'time')}" for code, count in facts.warnings.items()]
    return [
        "## Checks",
        f"Checked with {template}.",
        "\n".join([head, *lines]),
        *(["Said without refusing:", items(said)] if said else []),
    ]


def _loading(facts: DatasetFacts) -> list[str]:
    return [
        "## How to load it",
        f'```python\nfrom datasets import load_dataset\n\nrows = load_dataset("{facts.repo_id}")\n```',
        "With Tunewright, as a source in the config:",
        f"```yaml\nprepare:\n  source: hub:{facts.repo_id}\n```",
    ]


def _licence(facts: DatasetFacts) -> list[str]:
    if facts.license and facts.license != "unknown":
        return ["## Licence", f"`{inline(facts.license)}`"]
    return [
        "## Licence",
        "**No licence has been chosen yet.** Until its owner chooses one, nobody else may use the "
        "dataset. To choose: `--set publish.license=cc-by-4.0` and push again.",
    ]
