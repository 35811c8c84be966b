"""Run -> version in the local store (`versions/`), or to the Hub (`hub/`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunewright.artifacts import MANIFEST, Artifact, Kind, sha256
from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.events import SILENT, Listener
from tunewright.publish.hub.repositories import Part, repositories
from tunewright.publish.versions.layout import store_root, version_path


@dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Attributes:
        url: Address of the repository.
        commit: Id of the commit; None in a dry run.
        files: Path in the repository to size in bytes.
    """

    url: str
    commit: str | None
    files: Mapping[str, int]


@dataclass(frozen=True)
class Forced:
    """That a model is passed on although something speaks against it.

    Attributes:
        refused: What speaks against it, a sentence each.
        reason: Why it is done all the same, in its owner's words.
    """

    refused: Sequence[str]
    reason: str | None = None


def is_published(config: Config, published: Artifact) -> bool:
    """Tell whether the version that a receipt names is in the store, as it was published."""
    facts = published.facts
    place = version_path(store_root(config), facts["agent"], facts["adapter"], facts["version"])
    manifest = place / MANIFEST
    return manifest.is_file() and sha256(manifest) == facts["manifest_sha256"]


def publish(
    config: Config,
    adapter: Artifact,
    evaluation: Artifact,
    exported: Artifact,
    *,
    force: bool = False,
    reason: str | None = None,
    listener: Listener = SILENT,
) -> Artifact:
    """Return the receipt of a new version in the store, to which the store's map now points.

    The version is `<store>/<agent>/<adapter>/<version>/` with the folders `adapter` and `gguf`, a card and a
    manifest that names the SHA-256 and size of every file. It appears whole or not at all, however
    many processes publish at once and wherever one of them is killed.

    Args:
        config: The run's config; `publish` names store, agent, adapter and version.
        adapter: What training made.
        evaluation: Its comparison with the base.
        exported: GGUF files and Modelfile.
        force: Publish in spite of the verdict or a failed gate; the manifest records what was refused.
        reason: Why it is forced; the manifest records it too.
        listener: Is told the progress in bytes.

    Raises:
        TunewrightError: E_GATE_VERDICT, the verdict is overfitted or degraded, or a gate failed (each
            is named). E_VERSION_EXISTS, the version that the config names is taken.
            E_ARTIFACT_INVALID, files differ from their manifest. E_STORE_FS_UNSUPPORTED, the store's file
            system cannot do what it rests on. E_EXISTS, the store's folder holds other things. E_NAME,
            E_SECRET_IN_ARTIFACT, one is in the reason. E_UNSAFE_PATH, E_DISK_SPACE, E_RUN_LOCKED, E_IO.
    """
    from tunewright.publish.versions._publish import publish_run

    return publish_run(
        config, adapter, evaluation, exported, force=force, reason=reason, listener=listener
    )


def push_dataset(
    config: Config,
    dataset: Artifact,
    checked: Artifact | None,
    *,
    dry_run: bool = False,
    listener: Listener = SILENT,
) -> Pushed:
    """Upload a dataset to the Hub repository `publish.hub_dataset_id` as Parquet with a card, in one commit.

    Raises:
        TunewrightError: E_CONFIG_VALUE, no repository is named. E_HUB. E_SECRET_IN_ARTIFACT.
    """
    from tunewright.publish.hub._dataset import push_dataset as body

    repo_id = repositories(config, ["dataset"])["dataset"]
    options = config.publish
    return body(
        dataset,
        checked,
        repo_id=repo_id,
        private=options.hub_private,
        license=options.license,
        revision=options.hub_revision,
        dry_run=dry_run,
        listener=listener,
    )


def require_licences(config: Config, parts: Iterable[Part], *, listener: Listener | None) -> None:
    """Ask the Hub about licences of parts that are unknown here, before anything is made or uploaded.

    Args:
        config: `publish` names licences and repositories.
        parts: Of `dataset`, `adapter`, `merged`, `gguf`.
        listener: Is told instead, and the Hub is not asked; None: it is.

    Raises:
        TunewrightError: E_HUB, it does not take one, or there is no token.
    """
    from tunewright.publish.hub.licences import advice, doubtful, option_of

    asked: dict[str, tuple[str, Part]] = {}
    for part in parts:
        if licence := doubtful(config, part):
            asked[option_of(part)] = licence, part
    for option, (licence, part) in asked.items():
        if listener is not None:
            listener.said(
                f"The Hub may not know the licence '{licence}' ({option}): {advice(licence)}."
            )
            continue
        from tunewright.publish.hub._client import require_metadata

        card = f"---\nlicense: {licence}\n---\n"
        kind = "dataset" if part == "dataset" else "model"
        require_metadata(card, kind, repositories(config, [part])[part])


def push_model(
    config: Config,
    part: Part,
    artifacts: Mapping[str, Artifact],
    *,
    related: Mapping[str, str] | None = None,
    types: Sequence[str] | None = None,
    forced: Forced | None = None,
    report: Artifact | None = None,
    dry_run: bool = False,
    listener: Listener = SILENT,
) -> Pushed:
    """Upload an adapter, a merged model or GGUF files to the Hub with a card, in one commit.

    A repository that is made is private unless `publish.hub_private` is false. What was sent before an
    interruption is not sent again.

    Args:
        config: The run's; `publish` names the repositories.
        part: `adapter`, `merged` or `gguf`.
        artifacts: By kind: `adapter` for the card, what is uploaded, and all that the card may speak of.
        related: Other repositories of the run, for the card.
        types: GGUF types; None: all.
        forced: What speaks against it, for the top of the card.
        report: Its page is put beside the card.
        dry_run: Write and search everything, upload nothing, and touch no network.
        listener: Is told the progress in bytes.

    Raises:
        TunewrightError: E_CONFIG_VALUE, no repository is named. E_NOT_FOUND, a type was not exported.
            E_SECRET_IN_ARTIFACT with file and line. E_ARTIFACT_INVALID, a file has changed. E_NAME,
            E_HUB, E_IO.
    """
    from tunewright.publish.hub._model import push_model as body
    from tunewright.publish.hub.model_facts import facts_of

    kind: dict[Part, Kind] = {"adapter": "adapter", "merged": "merged", "gguf": "exported"}
    facts = facts_of(
        artifacts,
        config,
        kind=part if part != "dataset" else "adapter",
        repo_id=repositories(config, [part])[part],
        related=related,
        types=types,
        forced=forced,
    )
    for name in types or () if part == "gguf" else ():
        if name not in facts.ggufs:
            there = ", ".join(artifacts["exported"].facts["files"])
            message = f"'{name}' is no exported type; there are {there}."
            raise failure("E_NOT_FOUND", message, where="--gguf", fix="Name one of them.")
    return body(
        part,
        artifacts[kind[part]],
        facts,
        base=artifacts["adapter"].facts.get("base", config.model.model_name_or_path),
        report=report,
        private=config.publish.hub_private,
        revision=config.publish.hub_revision,
        dry_run=dry_run,
        listener=listener,
    )


def card_of(artifacts: Mapping[str, Artifact], config: Config, forced: Forced | None = None) -> str:
    """Return the card of a version with the folders `adapter` and `gguf`. No network is touched.

    Args:
        artifacts: By kind; `adapter` has to be there, and `dataset`, `check`, `evaluation`, `merged`,
            `exported` say more.
        config: The run's.
        forced: What speaks against the version, if it was published all the same.
    """
    from tunewright.publish.hub.model_card import model_card
    from tunewright.publish.hub.model_facts import facts_of

    return model_card(facts_of(artifacts, config, forced=forced))
