"""Sources with the Hub's, and what identifies them."""

from pathlib import Path

from tunewright.artifacts import sha256
from tunewright.config.schema import Config, PrepareSection, SourceSection
from tunewright.data.formats import _hub
from tunewright.data.sources import Fetched, Sources, digests, find


def find_files(config: Config) -> Sources:
    """Return the files of `prepare.source`; datasets on the Hub are fetched."""
    return find(config.prepare, _fetch, run_dir=Path(config.run_dir))


def input_digests(config: Config) -> dict[str, str]:
    """Return name and SHA-256 of every file that determines the dataset.

    A source that is not there any more, or a Hub that cannot be reached, has an empty digest: a dataset
    that is finished does not need it.
    """
    sources = find(config.prepare, _fetch, run_dir=Path(config.run_dir), lenient=True)
    return identify(config, sources) | dict.fromkeys(sources.gone, "")


def against_digests(config: Config) -> dict[str, str]:
    """Return name and SHA-256 of every file that `check.against` names; nothing if it is unset."""
    if config.check.against is None:
        return {}
    options = PrepareSection(source=(config.check.against,))
    return digests(find(options, _fetch, run_dir=Path(config.run_dir)).files)


def identify(config: Config, sources: Sources) -> dict[str, str]:
    """Return name and SHA-256 of the files, and of the chat template where it is a file."""
    found = digests(sources.files)
    template = Path(config.model.chat_template or "")
    if config.model.chat_template and template.is_file():
        found["model.chat_template"] = sha256(template)
    return found


def _fetch(entry: SourceSection) -> Fetched:
    return _hub.fetch(entry.path, name=entry.name, split=entry.split, revision=entry.revision)
