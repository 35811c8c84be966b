"""Run -> version in the local store, dataset -> Hub. `store.py` reads the store, the other files each do a part."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunewright.artifacts import MANIFEST, Artifact, sha256
from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.events import SILENT, Listener
from tunewright.publish.layout import store_root, version_path


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

    The version is `<store>/<agent>/<adapter>/<version>/` with the folders `adapter` and `gguf` and a
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
    from tunewright.publish._publish import publish_run

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
    from tunewright.publish._hub import push_dataset as body

    options = config.publish
    if options.hub_dataset_id is None:
        raise failure(
            "E_CONFIG_VALUE",
            "'publish.hub_dataset_id' is missing.",
            where="publish.hub_dataset_id",
            fix="--repo-id org/name",
        )
    return body(
        dataset,
        checked,
        repo_id=options.hub_dataset_id,
        private=options.hub_private,
        license=options.license,
        dry_run=dry_run,
        listener=listener,
    )
