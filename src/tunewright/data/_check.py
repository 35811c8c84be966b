"""The check stage: what is wrong with a dataset, all at once."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tunewright.artifacts import Artifact, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.schema import Config, SourceSection
from tunewright.data._examine import Examination
from tunewright.data._gather import collect, faults_of
from tunewright.data._sides import Sides, find_links, judge_copies, judge_overlap
from tunewright.data.findings import Findings
from tunewright.data.spool import Rows, write_rows
from tunewright.errors import TunewrightError
from tunewright.events import SILENT, Listener
from tunewright.models._load import load_tokenizer, resolve_model


def tokenizer_of(config: Config) -> PreTrainedTokenizerFast:
    """Return the base's tokenizer with the template that the config chooses."""
    base = resolve_model(config.model.model_name_or_path, config.model.revision, weights=False)
    return load_tokenizer(base, config.model.chat_template)


def check(config: Config, dataset: Artifact, listener: Listener) -> Artifact:
    """Check a dataset; see the facade."""

    def place(side: str, number: int, row: Mapping[str, Any]) -> str:
        origin = f" ({row['source']}:{row['line']})" if "line" in row else ""
        return f"{dataset.path / side}.jsonl:{number + 1}{origin}"

    path = Path(config.run_dir) / "check"
    settings = settings_of(config, "check")
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
    examination = Examination(config, tokenizer, work, findings)
    examination.rows(sides, listener)
    facts = examination.whole(sides)
    found = find_links(sides, work, config.prepare.near_duplicate_threshold, listener)
    facts |= judge_copies(sides, found, config, findings)
    if config.check.against is not None:
        second = _second(config, config.check.against)
        gathered, _ = collect(second, tokenizer, work / "against", SILENT)
        findings.extend(faults_of(gathered, second.prepare))
        with Rows(gathered.rows.path) as rows:
            other = Sides({"": rows}, place_in_source, config.check.against)
            facts["overlap"] = judge_overlap(sides, other, work, config, findings, listener)
    return facts, examination.shown


def place_in_source(side: str, number: int, row: Mapping[str, Any]) -> str:
    """Return file and line that a row is from."""
    del side
    return f"{row['source']}:{row.get('line', number + 1)}"


def _second(config: Config, path: str) -> Config:
    source = (SourceSection(path=path),)
    return config.model_copy(
        update={"prepare": config.prepare.model_copy(update={"source": source})}
    )


def _gates(config: Config, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows, limits = facts["rows"] - facts["rows_dropped"], config.check
    learned = rows - facts["rows_without_labels"]
    return [
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
