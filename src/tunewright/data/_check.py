"""The check stage: what is wrong with a dataset, all at once."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, PrepareSection, SourceSection
from tunewright.data._examine import Examination
from tunewright.data._gather import collect, refusals
from tunewright.data._sides import Place, Sides, find_links, judge_copies, judge_overlap
from tunewright.data._sources import against_digests, find_files
from tunewright.data.findings import Findings
from tunewright.data.sources import Sources
from tunewright.data.spool import Rows, write_rows
from tunewright.errors import TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.models._folders import resolve_model
from tunewright.models._tokenizer import load_tokenizer


def tokenizer_of(config: Config) -> PreTrainedTokenizerFast:
    """Return the base's tokenizer with the template that the config chooses."""
    base = resolve_model(config.model.model_name_or_path, config.model.revision, weights=False)
    return load_tokenizer(base, config.model.chat_template, config.model.extra_special_tokens)


def check(config: Config, dataset: Artifact, listener: Listener) -> Artifact:
    """Check a dataset; see the facade."""

    def place(side: str, number: int, row: Mapping[str, Any]) -> str:
        origin = f" ({row['source']}:{row['line']})" if "line" in row else ""
        return f"{dataset.path / side}.jsonl:{number + 1}{origin}"

    path = Path(config.run_dir) / "check"
    settings = {**settings_of(config, "check"), "against": against_digests(config)}
    with (
        writing(path, "check", settings=settings, parents={"dataset": dataset}) as draft,
        ExitStack() as opened,
    ):
        work = draft.path / "work"
        work.mkdir()
        sides = {
            side: opened.enter_context(Rows(dataset.path / f"{side}.jsonl"))
            for side in ("train", "eval")
        }
        findings = Findings()
        shown = Sides(sides, place, dataset.path)
        facts, rendered = examine(config, shown, findings, work, listener)
        facts["template"] = config.model.chat_template
        facts["warnings"] = findings.warnings()
        facts["gates"] = _gates(config, facts)
        errors = findings.errors()
        if errors:
            raise TunewrightError(errors, {**facts, "rendered": rendered})
        write_rows(draft.path / "rendered.jsonl", rendered)
        (work / "cut.jsonl").rename(draft.path / "cut.jsonl")
        shutil.rmtree(work)
        draft.facts |= facts
    return load_artifact(path, "check")


def examine(
    config: Config, sides: Sides, findings: Findings, work: Path, listener: Listener
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the figures of a dataset and the first rows as they are trained on; add the findings."""
    tokenizer = tokenizer_of(config)
    second = _second(config, config.check.against) if config.check.against else None
    # what cannot be found is told before the work, not after it
    others = find_files(second) if second else None
    examination = Examination(config, tokenizer, work, findings)
    examination.rows(sides, listener)
    facts = examination.whole(sides)
    found = find_links(sides, work, config.prepare.near_duplicate_threshold, listener)
    facts |= judge_copies(sides, found, config, findings)
    if second is not None:
        where = second.prepare.source[0].path
        gathered, sources = collect(second, tokenizer, work / "against", SILENT, sources=others)
        findings.extend(refusals(gathered, second.prepare))
        if not len(gathered) and not gathered.forms:
            message = "The second dataset has no rows to compare with."
            raise failure("E_DATA_EMPTY", message, where=where)
        with Rows(gathered.rows.path) as rows:
            other = Sides({"": rows}, placing(sources), where)
            facts["overlap"] = judge_overlap(sides, other, work, config, findings, listener)
    return facts, examination.shown


def placing(sources: Sources) -> Place:
    """Return a function that gives the file and line that a row is from."""
    paths = {file.name: str(file.path) for file in sources.files}

    def place(side: str, number: int, row: Mapping[str, Any]) -> str:
        del side
        return f"{paths[row['source']]}:{row.get('line', number + 1)}"

    return place


def _second(config: Config, source: SourceSection) -> Config:
    """Return a config that reads the second dataset by its own options."""
    threshold = config.prepare.near_duplicate_threshold
    own = PrepareSection(source=(source,), near_duplicate_threshold=threshold)
    return config.model_copy(update={"prepare": own})


def _gates(config: Config, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows, limits = facts["rows"] - facts["rows_dropped"], config.check
    learned = rows - facts["rows_without_labels"]
    overlap = {
        "gate": "no row of the second dataset",
        "value": f"{facts.get('overlap')} near copies",
        "limit": "0",
        "passed": not facts.get("overlap"),
    }
    return [
        *([overlap] if "overlap" in facts else []),
        {
            "gate": "no text on both sides of the split",
            "value": f"{facts['leaks'] + facts['sources_on_both_sides']} leaks",
            "limit": "0",
            "passed": not facts["leaks"] and not facts["sources_on_both_sides"],
        },
        {
            "gate": "rows have tokens to learn from",
            "value": f"{learned} of {rows} rows",
            "limit": f"{1 - limits.max_unlearned:.0%}",
            "passed": learned >= (1 - limits.max_unlearned) * rows,
        },
        {
            "gate": "the end of the answer is learned",
            "value": f"{facts['rows_with_end']} of {rows} rows",
            "limit": f"{1 - limits.max_cut:.0%}, and every uncut row",
            "passed": facts["rows_whole_without_end"] == 0
            and facts["rows_with_end"] >= (1 - limits.max_cut) * rows,
        },
    ]
