"""What can be served: an adapter on its base, a model in a folder, a GGUF file."""

from dataclasses import dataclass
from pathlib import Path

from tunewright.artifacts import Artifact, load_artifact
from tunewright.config.schema import Config
from tunewright.errors import TunewrightError, failure


@dataclass(frozen=True)
class AdapterModel:
    """An adapter on the base that it was trained on.

    Attributes:
        name: By which requests name it.
        words: What it is, in words.
        path: Its folder, with tokenizer and chat template.
        base: Name or folder of the base.
        revision: Of the base on the Hub.
        checkpoint: Folder of a checkpoint whose weights are served in place of the adapter's.
        in_4_bits: The base was quantised in training, and is here.
    """

    name: str
    words: str
    path: Path
    base: str
    revision: str | None = None
    checkpoint: Path | None = None
    in_4_bits: bool = False


@dataclass(frozen=True)
class FolderModel:
    """A model in a folder, such as a merged one.

    Attributes:
        name: By which requests name it.
        words: What it is, in words.
        path: Its folder, with tokenizer and chat template.
        base: Name or folder of the base that it was made from; None: not known.
        revision: Of the base on the Hub.
    """

    name: str
    words: str
    path: Path
    base: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class GgufModel:
    """A GGUF file.

    Attributes:
        name: By which requests name it.
        words: What it is, in words.
        path: The file.
        tokenizer: Folder with the tokenizer's files from training; None: what the file itself says counts.
        base: Name or folder of the base that it was made from; None: not known.
        revision: Of the base on the Hub.
    """

    name: str
    words: str
    path: Path
    tokenizer: Path | None = None
    base: str | None = None
    revision: str | None = None


Servable = AdapterModel | FolderModel | GgufModel


def servable_of(config: Config, made: Artifact, type_name: str | None = None) -> Servable:
    """Return what serves an artifact of a run.

    Args:
        config: Of the run.
        made: An adapter, a merged model, or exported files.
        type_name: Which of the exported files; None: the last of `export.quantization`.

    Raises:
        TunewrightError: E_USAGE, it is none of these. E_NOT_FOUND, no such type is exported.
    """
    base, revision = config.model.model_name_or_path, config.model.revision
    of_run = f"of {made.path.parent}"
    if made.kind == "adapter":
        return AdapterModel(
            config.name,
            f"the adapter {of_run} on {base}",
            made.path,
            base,
            revision,
            in_4_bits=config.train.load_in_4bit,
        )
    if made.kind == "merged":
        words = f"the merged model {of_run}"
        return FolderModel(f"{config.name}-merged", words, made.path, base, revision)
    if made.kind == "exported":
        file = made.path / _exported(made, type_name)
        words = f"the GGUF file {file.name} {of_run}"
        return GgufModel(file.stem, words, file, _tokenizer_of(made), base, revision)
    message = f"This is a {made.kind}, which cannot be served."
    raise failure("E_USAGE", message, where=made.path, fix="Name adapter, merged or exported.")


def _exported(made: Artifact, type_name: str | None) -> str:
    files = made.facts.get("files", {})
    if type_name is None:
        return str(made.facts["served"])
    if type_name not in files:
        message = f"'{type_name}' is not exported; exported are {', '.join(files)}."
        fix = f"Name one of them with --what; or: tunewright export RUN --set 'export.quantization=[{type_name}]'"
        raise failure("E_NOT_FOUND", message, where=made.path, fix=fix)
    return str(files[type_name]["file"])


def _tokenizer_of(exported: Artifact) -> Path | None:
    """Return the merged model that files were made of, if it is still beside them: its tokenizer is the one of training."""
    merged = exported.path.parent / "merged"
    try:
        same = load_artifact(merged, "merged").digest == exported.parents.get("merged")
    except TunewrightError:
        return None
    return merged if same else None
