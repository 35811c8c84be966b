"""Whether the model store is as it was published."""

from collections.abc import Iterator
from pathlib import Path

from tunewright.counting import counted
from tunewright.doctor.findings import Finding
from tunewright.errors import TunewrightError
from tunewright.publish.versions import layout
from tunewright.publish.versions.store import list_versions, verify


def store(folder: Path | None = None) -> Iterator[Finding]:
    """Give the finding on the store, every file of it hashed.

    Args:
        folder: Of the store; None: the one that other commands use.
    """
    folder = folder or layout.store_root()
    if not folder.exists():
        text = f"none yet: {folder}"
        yield Finding("store", "store", "note", text, "tunewright publish RUN makes it.")
        return
    try:
        root = layout.existing(folder)
        versions, problems = list_versions(root), verify(root)
    except TunewrightError as error:
        first = error.problems[0]
        yield Finding("store", "store", "bad", first.message, first.fix)
        return
    if problems:
        text = f"{len(problems)} problem{'s' * (len(problems) > 1)}: {problems[0].message}"
        fix = f"tunewright store verify --store {folder} tells all of them."
        yield Finding("store", "store", "bad", text, fix)
        return
    agents = len({version.agent for version in versions})
    text = f"{folder}: {counted(len(versions), 'version')} of {counted(agents, 'agent')}, all whole"
    yield Finding("store", "store", "good", text)
