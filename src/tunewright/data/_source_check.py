"""The check of data that has no config yet: files, folders, Hub datasets."""

import tempfile
from pathlib import Path
from typing import Any

from tunewright.config.schema import Config
from tunewright.counting import counted
from tunewright.data._check import examine, placing, tokenizer_of
from tunewright.data._gather import collect, facts_of, faults_of, preferences
from tunewright.data._sides import Sides
from tunewright.data.findings import Findings
from tunewright.data.spool import Rows
from tunewright.errors import TunewrightError, failure
from tunewright.events import Listener


def check_source(config: Config, listener: Listener) -> dict[str, Any]:
    """Check what `prepare.source` names; see the facade."""
    where = ", ".join(entry.path for entry in config.prepare.source)
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="tunewright-") as folder:
        work = Path(folder)
        gathered, sources = collect(config, tokenizer_of(config), work, listener)
        facts: dict[str, Any] = facts_of(gathered, sources)
        findings.extend(faults_of(gathered, config.prepare))
        if len(gathered):
            with Rows(gathered.rows.path) as rows:
                sides = Sides({"": rows}, placing(sources), where)
                figures, rendered = examine(config, sides, findings, work, listener)
            facts |= figures | {"rendered": rendered}
        elif not findings.errors() and not facts["preference_pairs"]:
            raise failure("E_DATA_EMPTY", "There are no rows in it.", where=where)
    if facts["dropped_lines"]:
        facts["notes"].append(
            f"{counted(facts['dropped_lines'], 'line is', 'lines are')} in no row, such as headings"
        )
    if facts["preference_pairs"]:
        facts["notes"] += [
            f"{problem.where}: {problem.message} {problem.fix}" for problem in preferences(gathered)
        ]
    facts["warnings"] = findings.warnings()
    errors = findings.errors()
    if errors:
        raise TunewrightError(errors, facts)
    return facts
