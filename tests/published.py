"""Runs whose artifacts are small files in the right places, and versions made of them."""

from pathlib import Path
from typing import Any

from tunewright.artifacts import Artifact, load_artifact, sha256, writing
from tunewright.config.schema import Config, PrepareSection, PublishSection
from tunewright.publish import publish
from tunewright.publish.versions import founding, manifest, pointers

GATE = {"gate": "merged equals tuned", "value": "1e-6", "limit": "1e-3", "passed": True}
KINDS = ("adapter", "evaluation", "exported")


def make(
    run: Path, kind: str, files: dict[str, bytes], facts: dict[str, Any], *parents: Artifact
) -> Artifact:
    """Return an artifact of a run, after writing its files."""
    given = {parent.kind: parent for parent in parents}
    with writing(run / kind, kind, settings={}, parents=given) as draft:
        for name, content in files.items():
            (draft.path / name).write_bytes(content)
        draft.facts |= {"gates": [GATE]} | facts
    return load_artifact(run / kind, kind)


def make_run(run: Path, *, weights: bytes = b"\x00" * 70_000, verdict: str = "improved") -> Path:
    """Return the folder of a run with a dataset, an adapter, an evaluation and GGUF files."""
    counts = {"train_rows": 96, "train_tokens": 15_360, "eval_rows": 24, "eval_tokens": 3_811}
    dataset = make(run, "dataset", {"train.jsonl": b"{}\n"}, counts)
    adapter = make(
        run,
        "adapter",
        {"adapter_model.safetensors": weights, "chat_template.jinja": b"{{ messages }}"},
        {"best_step": 5, "best_eval_loss": 2.5, "base_files": {"model.safetensors": "ab"}},
        dataset,
    )
    facts = {"verdict": verdict, "sentence": "Better.", "transfer_score": {"score": 71.0}}
    make(run, "evaluation", {"samples.jsonl": b"{}\n"}, facts, adapter)
    make(run, "exported", {"voice-f16.gguf": b"GGUF" * 9000, "Modelfile": b"FROM ./v.gguf\n"}, {})
    return run


def config_of(run: Path, store: Path, *, agent: str = "writer", **options: Any) -> Config:
    """Return the config that a run is published with."""
    return Config(
        name="voice",
        output_dir=str(run),
        prepare=PrepareSection(source="sample:manuscript"),
        publish=PublishSection(store=str(store), agent=agent, **options),
    )


def artifacts(run: Path) -> list[Artifact]:
    """Return what of a run is published."""
    return [load_artifact(run / kind, kind) for kind in KINDS]


def publish_once(
    store: Path, made: Path, receipt: Path | None = None, *, force: bool = False, **options: Any
) -> str:
    """Return the version that a run has become; `receipt` is where that is written down, if not in the run."""
    config = config_of(receipt or made, store, **options)
    return publish(config, *artifacts(made), force=force).facts["version"]


def write_version(root: Path, agent: str, adapter: str, version: str, **content: Any) -> Path:
    """Return the folder of a version that was written by hand, as the specification of the store says it."""
    founding.init(root)
    folder = root / agent / adapter / version
    (folder / "adapter").mkdir(parents=True)
    file = folder / "adapter" / "weights"
    file.write_text(version, encoding="utf-8")
    empty = ("metrics", "gates", "parents", "libraries", "config")
    told = {
        "format": 1,
        "agent": agent,
        "adapter": adapter,
        "version": version,
        "created": f"2026-11-{int(version[1:]):02}T00:00:00.000+00:00",
        "base": {"name": "tunewright/tiny", "revision": None, "files": None},
        **dict.fromkeys(("dataset", "forced", "sentence", "chat_template_sha256", "commit")),
        **{key: {} for key in empty},
        "verdict": "improved",
        "files": {"adapter/weights": {"sha256": sha256(file), "bytes": len(version)}},
    }
    (folder / "manifest.json").write_bytes(manifest.dump(told | content))
    pointers.point(root, agent, adapter, version)
    return folder
