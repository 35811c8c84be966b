"""The Hub's client: one commit with everything in it, tried again where a fault passes, errors that say what to do."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from httpx import HTTPError, InvalidURL
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    ModelInfo,
    constants,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    validate_repo_id,
)

from tunewright.errors import CODES, Problem, TunewrightError, failure, first_line
from tunewright.events import Listener
from tunewright.models._hub import quiet
from tunewright.publish import Pushed
from tunewright.publish.hub._metadata import CARD, Kind, require_accepted
from tunewright.publish.hub.repositories import require_token

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 1.0
LARGE_BYTES = 10_000_000
"""From this size on a file is sent by itself, so that the progress is told."""
_PASSING = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")
Superseded = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True)
class Place:
    """A repository.

    Attributes:
        repo_id: `org/name`.
        kind: What it holds.
        private: Visibility, if it is created.
        revision: Branch; made if it is not there. None: `main`.
    """

    repo_id: str
    kind: Kind
    private: bool = True
    revision: str | None = None

    @property
    def url(self) -> str:
        """Its address, without a user and password that HF_ENDPOINT may have."""
        return (
            f"{_shown(_endpoint())}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"
        )


def check_name(repo_id: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        TunewrightError: E_NAME.
    """
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


def upload(
    files: Mapping[str, Path],
    place: Place,
    *,
    title: str,
    digests: Mapping[str, str] | None = None,
    superseded: Superseded = lambda present: (),
    listener: Listener,
) -> Pushed:
    """Commit files to a repository at once, and return where they are.

    Args:
        files: Path in the repository to file.
        place: The repository; one that is there keeps its visibility.
        title: Of the commit.
        digests: Path in the repository to the SHA-256 that the file was made with, where it is known.
        superseded: Given the paths that are there, returns those that the commit removes, or refuses.
        listener: Is told the progress in bytes.

    Raises:
        TunewrightError: E_HUB, the card's metadata are refused, or anything else; until then nothing was sent.
            E_ARTIFACT_INVALID, a file is not what it was; what `superseded` raises.
    """
    token = require_token(place.repo_id)
    api = HfApi(endpoint=_endpoint(), token=token)
    sizes = sizes_of(files)
    listener.started("push", sum(sizes.values()), "bytes")
    with _explained(place.repo_id, api.endpoint, token), quiet():
        if CARD in files:
            _require_card(files[CARD].read_text(encoding="utf-8"), place.kind, api.endpoint, token)
        additions = partial(_additions, files, digests or {})
        commit = _upload(api, additions, place, title, superseded, listener)
    listener.advanced(sum(sizes.values()), place.repo_id)
    return Pushed(place.url, commit.oid, sizes)


def require_metadata(card: str, kind: Kind, repo_id: str) -> None:
    """Ask the Hub whether it takes the metadata of a card, without making a repository.

    Raises:
        TunewrightError: E_HUB.
    """
    token, endpoint = require_token(repo_id), _endpoint()
    with _explained(repo_id, endpoint, token):
        _require_card(card, kind, endpoint, token)


def _require_card(card: str, kind: Kind, endpoint: str, token: str) -> None:
    _tried(lambda: require_accepted(card, kind, endpoint=endpoint, token=token))


def sizes_of(files: Mapping[str, Path]) -> dict[str, int]:
    """Return path in the repository to size in bytes."""
    return {name: file.stat().st_size for name, file in files.items()}


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _upload(
    api: HfApi,
    added: Callable[[], list[CommitOperationAdd]],
    place: Place,
    title: str,
    superseded: Superseded,
    listener: Listener,
) -> CommitInfo:
    """Return the commit. One that landed although its answer was lost is recognised, not made twice."""
    name, kind, branch = place.repo_id, place.kind, place.revision
    _tried(
        lambda: api.create_repo(name, repo_type=kind, private=place.private, exist_ok=True),
    )
    if branch is not None and branch != "main":
        _tried(lambda: api.create_branch(name, repo_type=kind, branch=branch, exist_ok=True))
    first = _tried(lambda: _info(api, place))
    if place.private and first.private is False:
        listener.said(f"{name} was there already and is public: anyone can read what is uploaded.")

    def commit() -> CommitInfo:
        # Operations remember what they have done; after a lost answer they have to look again.
        additions = added()
        gone = superseded([one.rfilename for one in _info(api, place).siblings or ()])
        _send_large(api, additions, place, listener)
        return api.create_commit(
            name,
            [*additions, *(CommitOperationDelete(path) for path in gone)],
            commit_message=title,
            repo_type=kind,
            revision=branch,
            parent_commit=first.sha,
        )

    return _tried(commit)


def _tried(action: Callable[[], T]) -> T:
    """Return what an action returns, tried again while it fails by what may pass."""
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except (HfHubHTTPError, HTTPError) as error:
            if not _passes(error):
                raise
        time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
    return action()


def _info(api: HfApi, place: Place) -> ModelInfo | DatasetInfo:
    look = api.dataset_info if place.kind == "dataset" else api.model_info
    return look(place.repo_id, revision=place.revision)


def _additions(files: Mapping[str, Path], digests: Mapping[str, str]) -> list[CommitOperationAdd]:
    """Return what is added, after hashing it: what is sent is what was made."""
    additions = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
    problems = [
        Problem(
            "E_ARTIFACT_INVALID",
            "The file has changed since it was made.",
            str(files[one.path_in_repo]),
            CODES["E_ARTIFACT_INVALID"].fix,
        )
        for one in additions
        if one.upload_info.sha256.hex()
        != digests.get(one.path_in_repo, one.upload_info.sha256.hex())
    ]
    if problems:
        raise TunewrightError(problems)
    return additions


def _send_large(
    api: HfApi, additions: Sequence[CommitOperationAdd], place: Place, listener: Listener
) -> None:
    """Upload what does not travel in the commit itself; what has arrived before is not sent again."""
    small = [one for one in additions if one.upload_info.size < LARGE_BYTES]
    large = [[one] for one in additions if one.upload_info.size >= LARGE_BYTES]
    done = 0
    for group in filter(None, [small, *large]):
        api.preupload_lfs_files(place.repo_id, group, repo_type=place.kind, revision=place.revision)
        done += sum(one.upload_info.size for one in group)
        listener.advanced(done, group[-1].path_in_repo)


def _passes(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    return True


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
        hidden = message.replace(token, "***").replace(endpoint, _shown(endpoint))
        raise failure("E_HUB", hidden, where=repo_id, fix=fix) from error


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
    return f"The upload failed: {first_line(error)}.", again


def _shown(endpoint: str) -> str:
    """Return an address without user and password."""
    scheme, mark, rest = endpoint.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else endpoint


def _host(endpoint: str) -> str | None:
    try:
        return urlsplit(endpoint).hostname
    except ValueError:
        return None


def _refusal(error: HfHubHTTPError, repo_id: str, endpoint: str, again: str) -> tuple[str, str]:
    status = error.response.status_code
    said = error.response.headers.get("X-Error-Message") or error.server_message
    owner = repo_id.partition("/")[0]
    tokens = f"{_shown(endpoint)}/settings/tokens"
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
        413: ("The Hub takes no files of this size.", "Push less at once, or in smaller files."),
        429: ("The Hub asks to slow down.", f"Wait some minutes. {again}"),
    }
    answers[412] = answers[409]
    if isinstance(error, RevisionNotFoundError):
        return "The repository has no such branch.", "Check the name of the branch."
    return answers.get(status, (f"The Hub answers with an error ({status}).", again))
