"""A run on the bundled base that is made without training: adapter, merged model, GGUF file, version in a store."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig

from tunewright import load_config
from tunewright.artifacts import load_artifact, writing
from tunewright.config.load import dump_config
from tunewright.events import SILENT
from tunewright.export._gguf import gguf_tokenizer, write_gguf
from tunewright.export.architecture import Shape, shape_of
from tunewright.merge._merge import merge_folder
from tunewright.models._folders import TINY, resolve_model
from tunewright.models._load import load_model
from tunewright.models._tokenizer import load_tokenizer, save_tokenizer
from tunewright.publish import publish

F32 = "t-F32.gguf"
"""Name of the file that is exported."""


def make_run(folder: Path):
    """Return the config of a run in `folder/run`, whose adapter is random; its version is in `folder/store`."""
    run = folder / "run"
    config = load_config(
        "preset:demo",
        [
            *("name=t", f"output_dir={run}", "export.quantization=[F32]", "publish.agent=critic"),
            *(f"publish.store={folder / 'store'}", "publish.adapter=voice", "publish.version=v1"),
        ],
    )
    base = resolve_model(TINY)
    with writing(run / "adapter", "adapter", settings={}, parents={}) as draft:
        write_adapter(base, draft.path)
        draft.facts.update(eval_losses=[], base=TINY)
    adapter = load_artifact(run / "adapter", "adapter")
    with writing(run / "merged", "merged", settings={}, parents={"adapter": adapter}) as draft:
        merge_folder(base, adapter.path, draft.path, SILENT)
    merged = load_artifact(run / "merged", "merged")
    with writing(run / "exported", "exported", settings={}, parents={"merged": merged}) as draft:
        shape = write_f32(merged.path, draft.path / F32)
        files = {"F32": {"file": F32}}
        draft.facts.update(files=files, served=F32, context_length=shape.context_length)
    with writing(run / "evaluation", "evaluation", settings={}, parents={"adapter": adapter}) as d:
        d.facts.update(verdict="improved")
    (run / "run.yaml").write_text(dump_config(config))
    kinds = ("adapter", "evaluation", "exported")
    publish(config, *(load_artifact(run / kind, kind) for kind in kinds))
    return config


def write_f32(model: Path, file: Path) -> Shape:
    """Write a model as a GGUF file in float32, and return its shape."""
    shape = shape_of(AutoConfig.from_pretrained(model).to_dict())
    write_gguf(
        file,
        model=model,
        shape=shape,
        tokenizer=gguf_tokenizer(load_tokenizer(model), shape.vocabulary),
        type_name="F32",
        advanced=lambda done, detail: None,
    )
    return shape


def write_adapter(base: Path, path: Path) -> None:
    """Write a random adapter, far enough from nothing that answers differ, and near enough that they are words."""
    torch.manual_seed(5)
    options = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(load_model(base), options)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    model.peft_config["default"].base_model_name_or_path = TINY
    model.save_pretrained(path, save_embedding_layers=False)
    save_tokenizer(load_tokenizer(base), path)
