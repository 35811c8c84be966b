"""A run on the bundled base that is made without training, whole and as its config says: to be pushed."""

import json
import os
import shutil
from pathlib import Path

from served import F32, write_adapter, write_f32

from tunewright import data, load_config
from tunewright.artifacts import Artifact, Kind, load_artifact, writing
from tunewright.config.inputs import settings_of
from tunewright.config.load import dump_config
from tunewright.config.schema import Config
from tunewright.events import SILENT
from tunewright.merge._merge import merge_folder
from tunewright.models._folders import TINY, resolve_model

GATE = {"gate": "the held-out loss fell", "value": "4.6 to 4.3", "limit": "lower", "passed": True}
MODELFILE = '''# A remark
FROM ./t-F32.gguf
TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}"""
SYSTEM """You are "brief"."""
PARAMETER stop "<|im_end|>"
PARAMETER stop """a "b" c"""
PARAMETER temperature 0.7
PARAMETER num_ctx 2048
'''
EVALUATION = {
    "verdict": "improved",
    "sentence": "The model has learned from the text.",
    "advice": "Go on.",
    "gates": [GATE],
    "transfer_score": {"score": 71.4, "low": 64.0, "high": 78.9, "reason": ""},
    "memorisation": {"longest_words": 4, "copied_share": 0.01, "heldout_copied_share": 0.005},
    "perplexity": {
        side: {
            name: {"value": value, "low": value - 1, "high": value + 1}
            for name, value in (("base", 99.8), ("tuned", 75.7), ("ratio", 1.76))
        }
        for side in ("heldout", "neutral")
    },
}


def make_run(folder: Path, base: str = TINY) -> Config:
    """Return the config of a run in `folder/run`: dataset, random adapter, merged model, F32 GGUF file, report."""
    run = folder / "run"
    (folder / "rows.jsonl").write_text('{"prompt": "Hello", "completion": "there"}\n' * 3)
    config = load_config(
        "preset:demo",
        [
            *("name=t", f"output_dir={run}", "export.quantization=[F32]", "publish.agent=critic"),
            *(f"prepare.source={folder / 'rows.jsonl'}", f"model.model_name_or_path={base}"),
            *("publish.hub_model_id=me/voice", "publish.hub_dataset_id=me/rows"),
        ],
    )
    run.mkdir(parents=True)
    (run / "run.yaml").write_text(dump_config(config))
    dataset = _dataset(config)
    tiny = resolve_model(TINY)
    with _writing(config, "adapter", dataset) as draft:
        write_adapter(tiny, draft.path)
        settings = json.loads((draft.path / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = base
        (draft.path / "adapter_config.json").write_text(json.dumps(settings))
        summary = json.dumps({"model_name_or_path": base, "seed": 42}, indent=1)
        (draft.path / "training_summary.json").write_text(summary + "\n")
        losses = [[step, 4.6 - step / 10] for step in range(4)]
        draft.facts |= {"eval_losses": losses, "base": base, "best_step": 3, "gates": [GATE]}
    adapter = load_artifact(run / "adapter", "adapter")
    with _writing(config, "merged", adapter, dataset) as draft:
        merge_folder(tiny, adapter.path, draft.path, SILENT)
        draft.facts |= {"mean_kl": 1e-6, "top1_agreement": 0.99, "tokens": 9, "gates": [GATE]}
    _export(config, load_artifact(run / "merged", "merged"), dataset)
    evaluate(config)
    with _writing(config, "report", adapter) as draft:
        (draft.path / "report.html").write_text(f"<html><code>{run}/adapter</code></html>")
    return config


def evaluate(config: Config, **facts: object) -> None:
    """Write the evaluation of a run anew."""
    run = Path(config.run_dir)
    parents = (load_artifact(run / "dataset", "dataset"), load_artifact(run / "adapter", "adapter"))
    with _writing(config, "evaluation", *parents) as draft:
        draft.facts |= EVALUATION | facts


def copied(config: Config, folder: Path) -> Config:
    """Return a copy of a run, which a test may change; large files are the same, to be replaced and not written."""
    shutil.copytree(config.run_dir, folder / "run", copy_function=_linked)
    return config.model_copy(update={"output_dir": str(folder / "run")})


def _linked(source: str, target: str) -> None:
    large = Path(source).stat().st_size > 1_000_000
    (os.link if large else shutil.copyfile)(source, target)


def _writing(config: Config, kind: Kind, *parents: Artifact, **more: object):
    return writing(
        Path(config.run_dir) / kind,
        kind,
        settings=settings_of(config, kind) | more,
        parents={parent.kind: parent for parent in parents},
    )


def _dataset(config: Config) -> Artifact:
    inputs = data.input_digests(config)
    with _writing(config, "dataset", inputs=inputs) as draft:
        for side, count in (("train", 20), ("eval", 4)):
            rows = [{"prompt": f"Say {n}", "completion": f"It is {n}."} for n in range(count)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (draft.path / f"{side}.jsonl").write_text(text)
        files = [{"name": "rows.jsonl", "kind": "rows"}]
        draft.facts |= {"inputs": inputs, "files": files, "train_rows": 20, "eval_rows": 4}
    return load_artifact(Path(config.run_dir) / "dataset", "dataset")


def _export(config: Config, merged: Artifact, dataset: Artifact) -> None:
    with _writing(config, "exported", merged, dataset) as draft:
        write_f32(merged.path, draft.path / F32)
        (draft.path / "Modelfile").write_text(MODELFILE)
        size = (draft.path / F32).stat().st_size
        figures = {"mean_kl": 1e-7, "top1_agreement": 1.0, "perplexity": 17.1}
        file = {"file": F32, "bytes": size, "merged_perplexity": 17.0, **figures}
        gates = [{**GATE, "gate": "F32: weights"}]
        draft.facts |= {"files": {"F32": file}, "served": F32, "gates": gates}
        draft.facts["ollama_template"] = True
