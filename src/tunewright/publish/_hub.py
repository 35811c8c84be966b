"""A dataset to a repository on the Hugging Face Hub: Parquet files and a card, in one commit."""

import os
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from httpx import HTTPError, InvalidURL
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

from tunewright.artifacts import Artifact, load_artifact
from tunewright.errors import Problem, TunewrightError, failure
from tunewright.events import SILENT, Listener
from tunewright.machine import require_space
from tunewright.privacy import secrets_in
from tunewright.publish import Pushed, _parquet
from tunewright.publish.card import DatasetFacts, Split, dataset_card

SIDES = {"train": "train", "eval": "validation"}
"""Name of each side in a dataset to its split on the Hub."""
CARD = "README.md"
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 1.0
LANGUAGE_SHARE = 0.05
"""Share of the rows from which the card names a language."""
_PASSING = (408, 429, 500, 502, 503, 504)


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
    _check_name(repo_id)
    token = os.environ.get("HF_TOKEN") or ""
    if not token and not dry_run:
        raise failure(
            "E_HUB",
            "HF_TOKEN is not set.",
            where=repo_id,
            fix="Make a token with write access on the Hub, and set HF_TOKEN to it.",
        )
    if load_artifact(dataset.path, "dataset", verify=True).digest != dataset.digest:
        raise failure("E_ARTIFACT_INVALID", "It was made anew in the meantime.", where=dataset.path)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, token=token or False)
    with tempfile.TemporaryDirectory(prefix="tunewright-") as folder:
        files = _write(dataset, check, Path(folder), repo_id, license)
        sizes = {name: file.stat().st_size for name, file in files.items()}
        url = f"{api.endpoint}/datasets/{repo_id}"
        if dry_run:
            return Pushed(url, None, sizes)
        listener.started("push", sum(sizes.values()), "bytes")
        with _explained(repo_id, api.endpoint, token), _quiet():
            commit = _upload(
                api, files, repo_id, private=private, revision=revision, listener=listener
            )
    listener.advanced(sum(sizes.values()), repo_id)
    return Pushed(url, commit.oid, sizes)


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        named = repo_id.count("/") == 1
    except HFValidationError:
        named = False
    if not named:
        raise failure(
            "E_NAME",
            f"'{repo_id}' is no name of a repository on the Hub.",
            where=repo_id,
            fix="Write org/name: letters, digits, dot, hyphen and underscore.",
        )


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
        if found := secrets_in(plain):
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
    checked: Mapping[str, Any] = check.facts if check else {}
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


def _upload(
    api: HfApi,
    files: Mapping[str, Path],
    repo_id: str,
    *,
    private: bool,
    revision: str | None,
    listener: Listener,
) -> CommitInfo:
    """Return the commit. One that landed although its answer was lost is recognised, not made twice."""
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    if revision not in (None, "main"):
        api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True)
    info = api.dataset_info(repo_id, revision=revision)
    if private and info.private is False:
        listener.said(
            f"{repo_id} was there already and is public: anyone can read what is uploaded."
        )
    attempt = 1
    while True:
        # Operations remember what they have done; after a lost answer they have to look again.
        additions = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
        api.preupload_lfs_files(repo_id, additions, repo_type="dataset", revision=revision)
        try:
            return api.create_commit(
                repo_id,
                additions,
                commit_message="Upload dataset with Tunewright",
                repo_type="dataset",
                revision=revision,
                parent_commit=info.sha,
            )
        except (HfHubHTTPError, HTTPError) as error:
            if attempt == ATTEMPTS or not _passes(error):
                raise
        time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        attempt += 1


def _passes(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    return True


@contextmanager
def _quiet() -> Generator[None]:
    """Keep the client's progress bars from the terminal: the listener shows the progress."""
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


@contextmanager
def _explained(repo_id: str, endpoint: str, token: str) -> Generator[None]:
    """Turn what the client raises into an error that says what to do, and never shows the token."""
    try:
        yield
    except TunewrightError:
        raise
    except (
        HTTPError,
        InvalidURL,
        HFValidationError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        message, fix = _reason(_root(error), repo_id, endpoint)
        raise failure("E_HUB", message.replace(token, "***"), where=repo_id, fix=fix) from error


def _root(error: BaseException) -> BaseException:
    """Return the answer or the network error behind an error of the client."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HfHubHTTPError | HTTPError | OfflineModeIsEnabled):
            return seen
        seen = seen.__cause__
    return error


def _reason(error: BaseException, repo_id: str, endpoint: str) -> tuple[str, str]:
    again = "Run the same command again; files that arrived are not sent twice."
    if isinstance(error, OfflineModeIsEnabled):
        return "The network is switched off by HF_HUB_OFFLINE.", "Unset HF_HUB_OFFLINE."
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repo_id, endpoint, again)
    host = _host(endpoint)
    if host is None or isinstance(error, InvalidURL):
        return "HF_ENDPOINT is no address.", "Unset HF_ENDPOINT, or write https://host."
    if isinstance(error, HTTPError):
        return f"The connection to {host} failed: {type(error).__name__}.", again
    if isinstance(error, PermissionError) and error.errno is None:  # how hf_xet says 401 and 403
        return "The Hub refuses the token in HF_TOKEN.", "Set HF_TOKEN to one with write access."
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"The upload failed: {first}", again


def _host(endpoint: str) -> str | None:
    try:
        return urlsplit(endpoint).hostname
    except ValueError:
        return None


def _refusal(error: HfHubHTTPError, repo_id: str, endpoint: str, again: str) -> tuple[str, str]:
    status = error.response.status_code
    said = error.response.headers.get("X-Error-Message") or error.server_message
    owner = repo_id.partition("/")[0]
    tokens = f"{endpoint}/settings/tokens"
    answers = {
        400: (f"The Hub refuses the upload: {said or 'bad request'}.", again),
        401: (
            "The Hub does not accept the token in HF_TOKEN.",
            f"Make one with write access at {tokens}, and set HF_TOKEN to it.",
        ),
        403: (
            f"The token in HF_TOKEN may not write to '{owner}'.",
            f"Make one with write access to it at {tokens}, and set HF_TOKEN to it.",
        ),
        404: (
            "The Hub does not know the repository, or the token may not see it.",
            "Check the name and the token.",
        ),
        409: ("Somebody else has changed the repository meanwhile; nothing was uploaded.", again),
        413: ("The Hub takes no files of this size.", "Push a smaller dataset."),
        429: ("The Hub asks to slow down.", f"Wait some minutes. {again}"),
    }
    answers[412] = answers[409]
    if isinstance(error, RevisionNotFoundError):
        return "The repository has no such branch.", "Check the name of the branch."
    return answers.get(status, (f"The Hub answers with an error ({status}).", again))
