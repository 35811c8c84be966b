"""Tiny random models of every family, with tokenizers of both kinds that are trained here."""

import json
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HARD_TEXTS = json.loads(
    (resources.files("tunewright.export") / "hard_texts.json").read_text(encoding="utf-8")
)
CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
INSTRUCT = (
    "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{{- ' ' + m.content + eos_token }}{%- else %}{{- '[INST] ' + m.content + ' [/INST]' }}"
    "{%- endif %}{%- endfor %}"
)
SIZES = {
    "vocab_size": 1088,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3_ROPE}),
    "mistral": (MistralForCausalLM, MistralConfig, {"head_dim": 32, "sliding_window": None}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 32, "tie_word_embeddings": False}),
}


def write_model(folder, family, tokenizer, **options):
    """Write a random model and its tokenizer; biases and norms are random too."""
    model_class, config_class, own = FAMILIES[family]
    special = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, **own, **special, **options}))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.8, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_level(steps=None, *, whole_words=False, normalizer=None, vocabulary=1024):
    """Return a byte-level BPE tokenizer that splits by steps first, trained on the hard texts."""
    if steps is None:
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(HARD_TEXTS * 2, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


def split_by(*patterns):
    """Return the steps that split by regular expressions, one after the other."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def sentencepiece(form="always", vocabulary=1024):
    """Return a tokenizer of the kind that SentencePiece's BPE becomes in a tokenizer.json.

    Args:
        form: "legacy" (a normalizer puts the space), or a scheme of Metaspace.
        vocabulary: Pieces.
    """
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    space = "\u2581"
    # llama.cpp joins pieces to what looks like a special token, which pieces of such texts would allow.
    # SentencePiece writes NUL as its byte token; a piece of it would be an empty text to llama.cpp.
    texts = [text for text in HARD_TEXTS if not re.search("</?s>|<unk>|\0", text)]
    words = [word for text in texts for word in re.findall(" *[^ ]+", f" {text}")]
    counts = Counter(
        word[at:end].replace(" ", space)
        for word in words
        for at in range(len(word))
        for end in range(at + 1, min(at + 6, len(word)) + 1)
    )
    common = sorted(counts, key=lambda text: (-counts[text], text))
    characters = [text for text in common if len(text) == 1][:120]
    joined = [text for text in common if len(text) > 1][: vocabulary - 259 - len(characters)]
    vocab = {t: i for i, t in enumerate(["<unk>", "<s>", "</s>", *bytes_, *joined, *characters])}
    merges = [
        (piece[:at], piece[at:])
        for piece in joined
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if form == "legacy":
        parts = [normalizers.Prepend(space), normalizers.Replace(" ", space)]
        tokenizer.normalizer = normalizers.Sequence(parts)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=form, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        chat_template=INSTRUCT,
    )


def rewrite_json(file: Path, change):
    """Apply a function to a JSON file's value."""
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value), encoding="utf-8")
