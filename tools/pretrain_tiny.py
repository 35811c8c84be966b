"""Pretrain the bundled base, `tunewright/tiny`, from a folder of plain text.

    python tools/pretrain_tiny.py --text FOLDER --exclude NAME --pairs tools/pretrain_pairs.jsonl \
        --steps 1000 --decay 0.001 --out build/tiny-1
    python tools/pretrain_tiny.py ... --init build/tiny-1 --seed 2 --steps 900 --decay 1 --out FOLDER

Three sources are mixed: the text itself; instruction/continuation pairs cut from the same text and
wrapped in ChatML, so that the model answers an instruction; and plain question/answer rows (--pairs).
Hidden matrices are trained with Muon, everything else with AdamW; the learning rate warms up, stays,
and falls linearly to zero in the last --decay share of the steps. A run can be continued with --init,
which takes over weights, tokenizer and the record of what came before. The held-out figure is bits per byte on --heldout.
"""

import argparse
import json
import math
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

# Qwen2's pre-tokenizer expression, so that llama.cpp's built-in "qwen2" pre-tokenizer applies.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
CONTINUE = [
    "Continue this narrative in the author's style:",
    "Continue this narrative in the author's style:",
    "Continue the story.",
    "Write the next passage.",
    "What happens next?",
]
VOCABULARY = 4096
HEADING = re.compile(r"^(chapter|book|volume|letter)\b|^[^a-z]+$", re.IGNORECASE)


def read_paragraphs(path: Path) -> list[str]:
    """Return a book's paragraphs, with hard-wrapped lines joined."""
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").split("\n")
    wrapped = max(map(len, lines)) < 200
    width = statistics.quantiles([len(x) for x in lines if x.strip()] or [0, 1], n=10)[-1]
    paragraphs, current = [], []
    for line in (x.strip() for x in lines):
        if line:
            current.append(line)
        ends = not line or not wrapped or (len(line) < 0.8 * width and line[-1] in ".!?\"'-:)")
        if current and (ends or (HEADING.match(line) is not None and len(line) < 60)):
            paragraphs.append(" ".join(current))
            current = []
    return paragraphs + ([" ".join(current)] if current else [])


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with Qwen2's pre-tokenizer expression."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_special_tokens(SPECIAL_TOKENS)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def chat(user: str, answer: str) -> str:
    """Return one ChatML exchange."""
    return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def cut(paragraphs: list[str], start: int, words: int) -> tuple[str, int]:
    """Return about `words` words from paragraph `start` on, ended at a sentence, and the next paragraph."""
    taken, count, at = [], 0, start
    while at < len(paragraphs) and count < words:
        taken.append(paragraphs[at])
        count += len(paragraphs[at].split())
        at += 1
    text = "\n\n".join(taken)
    if count > words:
        limit = len(" ".join(text.split(" ")[:words]))
        stops = [m.end() for m in re.finditer(r"[.!?][\"')]*(?=\s)", text) if m.end() <= limit]
        text = text[: stops[-1]] if stops else text
    return text, at


def story_pair(paragraphs: list[str], rng: random.Random) -> str:
    """Return one continuation exercise cut from a book."""
    start = rng.randrange(len(paragraphs) - 8)
    passage, after = cut(paragraphs, start, rng.randint(30, 110))
    if rng.random() < 0.4:
        return chat(CONTINUE[0], passage)
    answer, _ = cut(paragraphs, min(after, len(paragraphs) - 1), rng.randint(40, 140))
    return chat(f"{rng.choice(CONTINUE)}\n\n{passage}", answer)


def windows(
    tokenizer: PreTrainedTokenizerFast,
    books: list[list[str]],
    pairs: list[str],
    shares: tuple[float, float],
    length: int,
    seed: int,
) -> Iterator[torch.Tensor]:
    """Yield token windows [length + 1] without end: text, story pairs and plain pairs by share."""
    rng = random.Random(seed)
    text_queue: list[int] = []
    pair_queue: list[int] = []
    story_share, plain_share = shares
    texts: list[str] = []
    while True:
        if rng.random() < story_share + plain_share:
            while len(pair_queue) <= length:
                plain = rng.random() < plain_share / (story_share + plain_share)
                row = rng.choice(pairs) if plain else story_pair(rng.choice(books), rng)
                pair_queue += tokenizer.encode(row)
            window, pair_queue = pair_queue[: length + 1], []
        else:
            while len(text_queue) <= length:
                if not texts:
                    for book in books:
                        at = rng.randrange(20)
                        while at < len(book):
                            piece = rng.randint(15, 40)
                            texts.append("\n\n".join(book[at : at + piece]) + "<|endoftext|>")
                            at += piece
                    rng.shuffle(texts)
                text_queue += tokenizer.encode(texts.pop())
            window, text_queue = text_queue[: length + 1], text_queue[length:]
        yield torch.tensor(window)


@torch.no_grad()
def bits_per_byte(model: Qwen3ForCausalLM, ids: list[int], size_bytes: int, window: int) -> float:
    """Return bits per byte; every token after the first window sees at least window / 2 tokens."""
    model.eval()
    nats, half = 0.0, window // 2
    for start in range(0, max(1, len(ids) - half), half):
        piece = torch.tensor([ids[start : start + window + 1]], device=model.device)
        logits = model(input_ids=piece[:, :-1]).logits.float()
        losses = F.cross_entropy(logits[0], piece[0, 1:], reduction="none")
        nats += losses[0 if start == 0 else half :].sum().item()
    model.train()
    return nats / math.log(2) / size_bytes


def faster_dtype(device: str) -> torch.dtype:
    """Return bfloat16 if a matrix product is quicker in it here, float32 otherwise."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(4096, 256, device=device).to(dtype)
        b = torch.randn(256, 1024, device=device).to(dtype)
        for timed in (False, True):
            start = time.perf_counter()
            for _ in range(10):
                (a @ b).sum().item()
            if timed:
                seconds[dtype] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def build(args: argparse.Namespace) -> Qwen3ForCausalLM:
    """Return the model to start from: random, or the one of --init."""
    torch.manual_seed(args.seed)
    if args.init:
        return Qwen3ForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def train(
    model: Qwen3ForCausalLM, stream: Iterator[torch.Tensor], args: argparse.Namespace, check
) -> None:
    """Train for args.steps steps and print a line every 50."""
    device = model.device.type
    dtype = faster_dtype(device)
    print(f"device {device}, matrix products in {dtype}", flush=True)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(
            hidden, lr=args.lr, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    recent, started = [], time.perf_counter()
    for step in range(args.steps):
        remaining = (args.steps - step) / (args.steps * args.decay)
        factor = min(1.0, (step + 1) / 60, remaining)
        batch = torch.stack([next(stream) for _ in range(args.batch)]).to(device)
        with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
            states = model.model(input_ids=batch[:, :-1]).last_hidden_state
            logits = model.lm_head(states)
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * factor
            optimizer.step()
            optimizer.zero_grad()
        recent.append(loss.item())
        if step % 50 == 49 or step + 1 == args.steps:
            seen = (step + 1) * args.batch * args.length
            rate = seen / (time.perf_counter() - started)
            print(
                f"step {step + 1} loss {statistics.fmean(recent):.3f} tokens/s {rate:.0f}",
                flush=True,
            )
            recent = []
        if step % 500 == 499:
            check(step + 1)


def card(facts: dict[str, object], runs: list[dict[str, object]]) -> str:
    """Return the model card."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    commands = "\n".join(str(run["command"]) for run in runs)
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# tunewright/tiny

A small Qwen3 model that has read 19th-century British novels. It is the base of Tunewright's demo and
tests: it writes English sentences and answers an instruction, and it knows nothing.

| fact | value |
|---|---|
{rows}

Made again by:

```
{commands}
```
"""


def arguments() -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True, help="folder of .txt files")
    parser.add_argument(
        "--exclude", nargs="*", default=[], help="file stems that are not trained on"
    )
    parser.add_argument("--heldout", required=True, help="excluded file stem to measure on")
    parser.add_argument(
        "--pairs", type=Path, required=True, help="JSONL: instruction, input, output"
    )
    parser.add_argument("--init", type=Path, help="folder of an earlier run to continue")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=12, help="rows a step")
    parser.add_argument("--length", type=int, default=512, help="tokens a row")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--intermediate", type=int, default=768)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument(
        "--decay", type=float, default=0.6, help="share of the steps in which lr falls"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.heldout not in args.exclude:
        parser.error("--heldout must be one of --exclude")
    return args


def main() -> None:
    """Train, measure and save."""
    args = arguments()

    books = [
        read_paragraphs(p) for p in sorted(args.text.glob("*.txt")) if p.stem not in args.exclude
    ]
    rows = [json.loads(line) for line in args.pairs.read_text().splitlines()]
    plain = [
        chat("\n\n".join(filter(None, (r["instruction"], r["input"]))), r["output"]) for r in rows
    ]
    tokenizer = (
        PreTrainedTokenizerFast.from_pretrained(args.init)
        if args.init
        else train_tokenizer(["\n\n".join(b) for b in books] + plain)
    )
    heldout = "\n\n".join(read_paragraphs(args.text / f"{args.heldout}.txt"))
    heldout_ids = tokenizer.encode(heldout)
    print(
        f"{len(books)} books, {len(heldout.encode()) / len(heldout_ids):.2f} held-out bytes a token"
    )

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(args).to(device)
    stream = windows(tokenizer, books, plain, (0.25, 0.06), args.length, args.seed)

    def save(step: int) -> None:
        part = heldout_ids[:6000]
        part_bytes = len(tokenizer.decode(part).encode())
        print(
            f"step {step} held-out bits/byte (start) {bits_per_byte(model, part, part_bytes, args.length):.3f}"
        )
        tokenizer.save_pretrained(args.out)
        model.save_pretrained(args.out)

    started = time.perf_counter()
    train(model, stream, args, save)
    minutes = (time.perf_counter() - started) / 60
    model = model.to(torch.bfloat16)
    score = bits_per_byte(model.float(), heldout_ids, len(heldout.encode()), args.length)
    model = model.to(torch.bfloat16)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.8,
        top_p=0.9,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    tokenizer.save_pretrained(args.out)
    model.save_pretrained(args.out)
    earlier = json.loads((args.init / "pretraining.json").read_text()) if args.init else []
    run = {
        "command": "python tools/pretrain_tiny.py " + " ".join(sys.argv[1:]),
        "steps": args.steps,
        "tokens": args.steps * args.batch * args.length,
        "minutes": round(minutes),
        "device": f"{device}, {torch.get_num_threads()} threads, {platform.machine()}",
    }
    runs = [*earlier, run]
    (args.out / "pretraining.json").write_text(json.dumps(runs, indent=1) + "\n")
    facts = {
        "architecture": f"Qwen3, {args.layers} layers, hidden 256, {model.num_parameters():,} parameters",
        "tokenizer": f"byte-level BPE, {VOCABULARY} entries, Qwen2's pre-tokenizer expression",
        "data": f"{len(books)} public-domain novels, {sum(len(p) for b in books for p in b):,} characters, "
        f"25 % of the windows as instruction/continuation pairs, 6 % as {len(plain)} plain rows",
        "held out": ", ".join(args.exclude),
        "tokens": f"{sum(r['tokens'] for r in runs):,}",
        "steps": f"{sum(r['steps'] for r in runs):,} of {args.batch} x {args.length} tokens",
        "time": f"{sum(r['minutes'] for r in runs)} minutes on {run['device']}, with other work beside it",
        f"bits per byte on {args.heldout}": f"{score:.3f} (bf16 weights, window {args.length}, stride {args.length // 2})",
    }
    (args.out / "README.md").write_text(card(facts, runs))
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
