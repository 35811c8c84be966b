"""Datasets on the Hugging Face Hub to local files of one split, at one commit. No code of a repository is run."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from httpx import HTTPError, InvalidURL
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    validate_repo_id,
)

from tunewright.data.formats.hub_layout import Layout, is_data, layout_of
from tunewright.data.sources import Fetched
from tunewright.errors import TunewrightError, failure
from tunewright.machine import require_space
from tunewright.models._hub import quiet

MAX_CARD_BYTES = 5_000_000
MAX_SHOWN = 200
"""Characters of a name that a message shows."""
_SHA = re.compile(r"[0-9a-f]{40}")


def fetch(
    source: str,
    *,
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> Fetched:
    """Return the data files of a split of a dataset on the Hub, downloaded at the commit that is named.

    The subsets and splits are those of the card's `configs`; without it those that the file names tell.
    Endpoint and token come from the environment: HF_ENDPOINT, HF_TOKEN.

    Args:
        source: `hub:org/name`.
        name: Subset (configuration); unset: the default one.
        split: Unset: `train`.
        revision: Branch, tag or commit; unset: the newest commit of `main`.

    Raises:
        TunewrightError: E_NAME, it is no name of a dataset. E_HUB, it cannot be fetched or has no such subset or split (those there are are
            named). E_UNSAFE_FORMAT, it is a loading script. E_DISK_SPACE.
    """
    repo_id = source.removeprefix("hub:")
    _require_name(repo_id)
    api = HfApi(
        endpoint=os.environ.get("HF_ENDPOINT") or constants.ENDPOINT,
        token=os.environ.get("HF_TOKEN") or False,
    )
    with _explained(repo_id, revision, api.endpoint), quiet():
        sha = api.dataset_info(repo_id, revision=revision).sha or ""
        if not _SHA.fullmatch(sha):
            raise failure("E_HUB", "The Hub names no commit.", where=source)
        sizes = _listing(api, repo_id, sha)
        card = ""
        if 0 < sizes.get("README.md", 0) <= MAX_CARD_BYTES:
            card = _download(api, repo_id, sha, "README.md").read_text("utf-8", errors="replace")
        chosen = _choose(layout_of(sizes, card, name, source), sizes, split, source)
        require_space(Path(constants.HF_HUB_CACHE), sum(sizes[file] for file in chosen.files))
        files = [_download(api, repo_id, sha, file) for file in chosen.files]
    return Fetched(files, chosen.files, sha, f"{chosen.reason}, commit {sha[:8]}")


def _require_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        message = "That is no name of a dataset on the Hub."
        where, fix = f"hub:{repo_id[:MAX_SHOWN]}", "Write hub:org/name."
        raise failure("E_NAME", message, where=where, fix=fix) from error


@dataclass(frozen=True)
class _Chosen:
    files: list[str]
    reason: str


def _choose(layout: Layout, sizes: dict[str, int], split: str | None, source: str) -> _Chosen:
    wanted = split or "train"
    if not any(layout.splits.values()):
        scripts = [file for file in sizes if file.endswith(".py")]
        if scripts and not any(is_data(file) for file in sizes):
            raise failure(
                "E_UNSAFE_FORMAT",
                f"The dataset is a program ('{scripts[0]}'), which Tunewright does not run.",
                where=source,
                fix="Name a dataset with data files; the Hub often has a converted copy at "
                "revision 'refs/convert/parquet'.",
            )
        raise failure(
            "E_HUB",
            "There are no files in it that can be read (JSONL, JSON, CSV, TSV, Parquet, Arrow).",
            where=source,
            fix="Name another dataset, or convert this one.",
        )
    if not layout.splits.get(wanted):
        there = ", ".join(name for name, files in layout.splits.items() if files)
        raise failure(
            "E_HUB",
            f"There is no split '{wanted}'; there are: {there}.",
            where=source,
            fix="Name one of them: the option `split` of the entry in prepare.source.",
        )
    files = layout.splits[wanted]
    count = f"{len(files)} file" + ("s" if len(files) > 1 else "")
    return _Chosen(files, f"{count} of split '{wanted}' by {layout.reason}")


def _listing(api: HfApi, repo_id: str, sha: str) -> dict[str, int]:
    """Return path and size of every file that has a path which stays inside its folder."""
    entries = api.list_repo_tree(repo_id, repo_type="dataset", revision=sha, recursive=True)
    sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
    for path in sizes:
        if path.startswith("/") or "\\" in path or "\0" in path or ".." in path.split("/"):
            raise failure("E_HUB", "A file of it has an impossible path.", where=f"hub:{repo_id}")
    return sizes


def _download(api: HfApi, repo_id: str, sha: str, file: str) -> Path:
    return Path(api.hf_hub_download(repo_id, file, repo_type="dataset", revision=sha))


@contextmanager
def _explained(repo_id: str, revision: str | None, endpoint: str) -> Generator[None]:
    """Turn what the client raises into an error that says what to do."""
    try:
        yield
    except TunewrightError:
        raise
    except (HfHubHTTPError, HTTPError, InvalidURL, OSError, ValueError) as error:
        message, fix = _reason(error, repo_id, revision, endpoint)
        raise failure("E_HUB", message, where=f"hub:{repo_id}", fix=fix) from error


def _reason(error: Exception, repo_id: str, revision: str | None, endpoint: str) -> tuple[str, str]:
    cause = error.__cause__
    if isinstance(error, EntryNotFoundError) and isinstance(cause, HfHubHTTPError | HTTPError):
        error = cause
    page = f"{endpoint}/datasets/{repo_id}"
    for kind, message, fix in (
        (
            GatedRepoError,
            "The dataset is open only to those who accept its terms.",
            f"Accept them at {page}, and set HF_TOKEN to a token of that account.",
        ),
        (
            RepositoryNotFoundError,
            "There is no such dataset, or it is private.",
            "Check the name; for a private one set HF_TOKEN to a token that may read it.",
        ),
        (
            RevisionNotFoundError,
            f"The dataset has no revision '{revision}'.",
            "Name a branch, a tag or a commit that is there.",
        ),
        (
            OfflineModeIsEnabled,
            "The network is switched off by HF_HUB_OFFLINE.",
            "Unset HF_HUB_OFFLINE, or name local files.",
        ),
    ):
        if isinstance(error, kind):
            return message, fix
    return _fault(error, endpoint)


def _fault(error: Exception, endpoint: str) -> tuple[str, str]:
    """Return what went wrong with the connection or the server, without what may hold a token."""
    again = "Run the same command again; what was fetched is kept."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"The Hub refuses access ({status}).",
                "Set HF_TOKEN to a token that may read it.",
            )
        return f"The Hub answers with an error ({status}).", again
    host = _host(endpoint)
    if host is None or isinstance(error, InvalidURL):
        return "HF_ENDPOINT is no address.", "Unset HF_ENDPOINT, or write https://host."
    if isinstance(error, HTTPError) or isinstance(error.__cause__, HTTPError):
        return f"The connection to {host} failed: {type(error).__name__}.", again
    if isinstance(error, OSError) and error.strerror:
        return f"A file cannot be written: {error.strerror}.", "Check the folder HF_HOME and space."
    return f"The download failed: {type(error).__name__}.", again


def _host(endpoint: str) -> str | None:
    try:
        return urlsplit(endpoint).hostname
    except ValueError:
        return None
