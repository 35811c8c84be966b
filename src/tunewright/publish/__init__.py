"""Run -> version in the local store. `store.py` reads it and moves its map."""

from tunewright.artifacts import MANIFEST, Artifact, sha256
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener
from tunewright.publish.store import store_root, version_path


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
        force: Publish in spite of the verdict or a failed gate; the manifest records it.
        listener: Is told the progress in bytes.

    Raises:
        TunewrightError: E_GATE_VERDICT, the verdict is overfitted or degraded, or a gate failed (each
            is named). E_VERSION_EXISTS, the version that the config names is taken.
            E_ARTIFACT_INVALID, files differ from their manifest. E_NAME, E_DISK_SPACE, E_RUN_LOCKED,
            E_IO.
    """
    from tunewright.publish._publish import publish_run

    return publish_run(config, adapter, evaluation, exported, force=force, listener=listener)
