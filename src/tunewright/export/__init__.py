"""Merged model to GGUF files and an Ollama Modelfile, each proven against the merged model."""

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener

__all__ = ["export"]


def export(
    config: Config, merged: Artifact, dataset: Artifact, *, listener: Listener = SILENT
) -> Artifact:
    """Return `exported/`: one GGUF file a type, and a Modelfile for the last one.

    Every file is loaded in llama.cpp and compared with the merged model before the folder exists:
    token ids, chat rendering and special tokens must be equal, weights within rounding, next-token
    distributions close.

    Facts: `files` (type to file, bytes, mean_kl, max_kl, top1_agreement, perplexity, merged_perplexity,
    positions, perplexity_tokens, texts, tensor_types, fallback_tensors, bits_per_weight), `served`
    (file of the last type), `context_length` (tokens), `ollama_template` (whether the Modelfile has
    one), `gates`.

    Args:
        config: Options of the run; `export`.
        merged: The merged model.
        dataset: Whose held-out rows are compared on.
        listener: Is told of progress.

    Raises:
        TunewrightError: E_MODEL, the architecture or tokenizer cannot be written as GGUF.
            E_CONFIG_VALUE, the system message cannot be quoted, or nothing makes K-quants here.
            E_QUANTIZE, llama.cpp's quantisation failed. E_DISK_SPACE, E_OOM, too little is free.
            E_GATE_EXPORT, a file does not do what the merged model does; it is kept beside the export as
            `exported.rejected/NAME.gguf.rejected`, and there is no export.
    """
    from tunewright.export._export import export_model

    return export_model(config, merged, dataset, listener=listener)
