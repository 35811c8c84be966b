"""A dataset to a repository on the Hugging Face Hub: Parquet files and a card, in one commit."""

import tempfile
from pathlib import Path, PurePosixPath

from tunewright.artifacts import Artifact, load_artifact
from tunewright.config import version
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.machine import require_space
from tunewright.publish import Pushed
from tunewright.publish.hub import _parquet
from tunewright.publish.hub._client import Place, check_name, sizes_of, upload
from tunewright.publish.hub._metadata import CARD
from tunewright.publish.hub.dataset_card import DatasetFacts, Split, dataset_card
from tunewright.publish.hub.model_facts import LANGUAGE_SHARE
from tunewright.publish.hub.repositories import require_token
from tunewright.publish.private import found_in

SIDES = {"train": "train", "eval": "validation"}
"""Name of each side in a dataset to its split on the Hub."""


def push_dataset(
    dataset: Artifact,
    check: Artifact | None,
    *,
    repo_id: str,
    private: bool = True,
    license: str | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    listener: Listener = SILENT,
) -> Pushed:
    """Upload a dataset as Parquet with a card, in one commit, and return where it is.

    Endpoint and token come from the environment: HF_ENDPOINT, HF_TOKEN. A repository that is there keeps
    its visibility. Rows of several forms are all written as `messages`, or with plain text among them as
    they are, with null in the columns of the other forms. Columns that hold objects, or whose types
    differ between rows, are written as JSON text.

    Args:
        dataset: What `prepare` made.
        check: What `check` found; its figures go on the card.
        repo_id: `org/name`.
        private: Visibility of a repository that is created.
        license: Licence id of the Hub, for the card.
        revision: Branch; made if it is not there. Unset: `main`.
        dry_run: Write and scan everything, upload nothing, and touch no network.
        listener: Is told the progress in bytes.

    Raises:
        TunewrightError: E_NAME, `repo_id` is no name. E_ARTIFACT_INVALID, a file has changed.
            E_SECRET_IN_ARTIFACT with file and row. E_HUB. E_DISK_SPACE, E_IO.
    """
    check_name(repo_id)
    if not dry_run:
        require_token(repo_id)
    if load_artifact(dataset.path, "dataset", verify=True).digest != dataset.digest:
        raise failure("E_ARTIFACT_INVALID", "It was made anew in the meantime.", where=dataset.path)
    place = Place(repo_id, "dataset", private, revision)
    with tempfile.TemporaryDirectory(prefix="tunewright-") as folder:
        files = _write(dataset, check, Path(folder), repo_id, license)
        if dry_run:
            return Pushed(place.url, None, sizes_of(files))
        return upload(files, place, title="Upload dataset with Tunewright", listener=listener)


def _write(
    dataset: Artifact, check: Artifact | None, folder: Path, repo_id: str, license: str | None
) -> dict[str, Path]:
    """Return path in the repository to file: Parquet of each side, and the card."""
    sources = {side: dataset.path / f"{side}.jsonl" for side in SIDES}
    require_space(folder, 2 * sum(file.stat().st_size for file in sources.values()))
    survey = _parquet.survey(sources)
    if survey.secrets:
        raise TunewrightError(_counted(survey, dataset.path))
    files: dict[str, Path] = {}
    splits: list[Split] = []
    try:
        for side, source in sources.items():
            if not survey.rows[side]:
                continue
            name = f"data/{SIDES[side]}-00000-of-00001.parquet"
            target = files[name] = folder / PurePosixPath(name).name
            num_bytes = _parquet.write(survey, source, target)
            rows, words, file_bytes = survey.rows[side], survey.words[side], target.stat().st_size
            tokens = dataset.facts.get(f"{side}_tokens")
            splits.append(Split(SIDES[side], name, rows, words, tokens, num_bytes, file_bytes))
        card = dataset_card(_facts(dataset, check, survey, splits, repo_id, license))
        plain = card.replace("\\", "")  # the card's escapes would hide a token from the search
        if found := found_in(plain):
            message = (
                f"What looks like a secret ({found[0].kind}) is in the card: {found[0].shown}."
            )
            where = f"{CARD}:{plain.count(chr(10), 0, found[0].start) + 1}"
            raise failure("E_SECRET_IN_ARTIFACT", message, where=where)
        files[CARD] = folder / CARD
        files[CARD].write_text(card, encoding="utf-8", newline="\n")
    except OSError as error:
        raise failure("E_IO", f"{error.strerror or error}.", where=folder) from error
    return files


def _counted(survey: _parquet.Survey, where: Path) -> list[Problem]:
    if not survey.more_secrets:
        return survey.secrets
    message = f"{survey.more_secrets:,} more like these."
    fix = survey.secrets[0].fix
    return [*survey.secrets, Problem("E_SECRET_IN_ARTIFACT", message, str(where), fix)]


def _facts(
    dataset: Artifact,
    check: Artifact | None,
    survey: _parquet.Survey,
    splits: list[Split],
    repo_id: str,
    license: str | None,
) -> DatasetFacts:
    made = dataset.facts
    checked = dict(check.facts) if check else {}
    left_out = {"lines of text that are in no row": int(made.get("dropped_lines", 0))}
    left_out |= {f"rows: {why}": count for why, count in made.get("rejected_reasons", {}).items()}
    languages = checked.get("languages", {})
    return DatasetFacts(
        repo_id=repo_id,
        splits=splits,
        features=_parquet.features_of(survey.schema),
        shape=survey.shape,
        version=version("tunewright"),
        digest=dataset.digest,
        mixed=survey.mixed,
        json_columns=survey.json_columns,
        license=license,
        languages={name: share for name, share in languages.items() if share >= LANGUAGE_SHARE},
        sources=[file["name"] for file in made.get("files", [])] or list(made.get("inputs", {})),
        lengths=checked.get("lengths") or made.get("lengths"),
        left_out=left_out,
        notes=made.get("notes", []),
        template=checked.get("template"),
        gates=checked.get("gates", []),
        warnings={one["code"]: one["count"] for one in checked.get("warnings", [])},
    )
