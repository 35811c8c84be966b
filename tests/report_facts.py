"""What artifacts tell a report: the least, and everything."""

import math

from tunewright.artifacts import Kind

FACTS: dict[Kind, dict] = {
    "dataset": {
        "train_rows": 96,
        "eval_rows": 24,
        "train_words": 11_800,
        "eval_words": 2_950,
        "train_tokens": 15_360,
        "eval_tokens": 3_811,
        "lengths": {"edges": [100.0, 140.0, 180.0, 220.0], "counts": [30, 60, 30]},
        "sources": 26,
        "dropped_lines": 7,
        "notes": ["2 files were not UTF-8 and were read as Windows-1252."],
        "gates": [
            {"gate": "near copies across the split", "value": "0", "limit": "0", "passed": True}
        ],
    },
    "adapter": {
        "base": "tunewright/tiny",
        "best_step": 84,
        "best_eval_loss": 3.412,
        "eval_losses": [
            [n * 12, 3.4 + 1.7 * math.exp(-n / 2) + 0.01 * (n - 7) ** 2 / 4] for n in range(13)
        ],
        "train_losses": [
            [n * 4, 2.9 + 2.2 * math.exp(-n / 9) + 0.08 * math.sin(n * 2.1)] for n in range(37)
        ],
        "steps": 144,
        "seconds": 93.4,
        "stopped_early": True,
    },
    "evaluation": {
        "verdict": "improved",
        "sentence": "The tuned model writes far more like the author: 71 % of the way from the base, "
        "and it repeats no more of the training text than the author does.",
        "advice": "It can be published. For more: `train.lora.r`.",
        "transfer_score": {"score": 71.2, "low": 62.4, "high": 79.0, "reason": None, "words": 4000},
        "markers": [
            {
                "marker": "words a sentence",
                "base": 9.1,
                "tuned": 15.7,
                "author": 17.2,
                "towards": True,
            },
            {"marker": "commas per 1,000 words", "base": 41.0, "tuned": 66.1, "author": 71.9},
            {"marker": "share of dialogue", "base": 0.02, "tuned": 0.19, "author": 0.24},
            {"marker": "semicolons per 1,000 words", "base": 1.2, "tuned": 0.8, "author": 6.4},
            {"marker": "distinct words in 100", "base": 61.0, "tuned": 61.0, "author": 68.3},
        ],
        "memorisation": {
            "longest_words": 9,
            "limit_words": 25,
            "longest_text": "and the tide went out as it had every morning",
            "longest_source": "chunk_07.txt",
            "copied_share": 0.004,
            "heldout_copied_share": 0.003,
        },
        "perplexity": {"heldout": {"base": {"value": 61.3}, "tuned": {"value": 31.9}}},
        "gates": [
            {
                "gate": "longest copy",
                "value": "9 words",
                "limit": "at most 25 words",
                "passed": True,
            },
            {
                "gate": "perplexity, tuned over base",
                "value": "0.52",
                "limit": "at most 1.05",
                "passed": True,
            },
        ],
    },
    "merged": {
        "mean_kl": 2.1e-6,
        "max_kl": 4.4e-4,
        "top1_agreement": 0.9989,
        "tokens": 2048,
        "gates": [
            {
                "gate": "merged equals base with adapter",
                "value": "KL 2.1e-06",
                "limit": "KL 1e-03",
                "passed": True,
            }
        ],
    },
    "exported": {
        "files": {
            "F16": {
                "file": "voice-F16.gguf",
                "bytes": 23_400_000,
                "mean_kl": 3e-6,
                "max_kl": 8e-4,
                "top1_agreement": 0.998,
                "positions": 3000,
                "texts": 24,
            },
            "Q8_0": {
                "file": "voice-Q8_0.gguf",
                "bytes": 12_600_000,
                "mean_kl": 0.0012,
                "max_kl": 0.041,
                "top1_agreement": 0.981,
                "positions": 3000,
                "texts": 24,
            },
        },
        "served": "Q8_0",
        "ollama_template": True,
        "gates": [
            {
                "gate": "token ids on hard texts",
                "value": "214 of 214 equal",
                "limit": "all",
                "passed": True,
            },
            {
                "gate": "Q8_0 against merged",
                "value": "KL 0.0012",
                "limit": "KL 0.01",
                "passed": False,
            },
        ],
    },
    "published": {
        "agent": "demo",
        "adapter": "voice",
        "version": "v20261101-0930",
        "files": 9,
        "bytes": 37_000_000,
        "manifest_sha256": "ab" * 32,
        "gates": [],
    },
}


def estimate(value: float, spread: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def side(words: float) -> dict:
    return {
        "answers": 60,
        "words": estimate(words, 4),
        "tokens": estimate(90.0, 6),
        "ended": estimate(0.5),
        "written": estimate(0.95, 0.02),
        "distinct_3": estimate(0.9, 0.01),
        "different_answers": 0.98,
    }


LOSSES = {"rows": 20, "tokens": 3000, "base": estimate(60.0), "tuned": estimate(30.0)}
FULL = {
    "reasons": ["The score is over its target.", "The longest copy has 12 words."],
    "compared": {"base": "tunewright/tiny", "tuned": "checkpoint 84"},
    "memorisation": FACTS["evaluation"]["memorisation"]
    | {
        "heldout_longest_words": 6,
        "loss_gap": 0.687,
        "base_loss_gap": 0.003,
        "base_copied_share": 0.0123,
        "spans_found": 7,
        "spans": [
            {"words": n, "text": f"copy {n}", "source": "a.txt", "answer": n, "side": "tuned"}
            for n in range(14, 9, -1)
        ],
    },
    "perplexity": {
        "heldout": LOSSES | {"ratio": estimate(0.5)},
        "training": LOSSES | {"ratio": estimate(1.05)},
        "neutral": LOSSES | {"ratio": estimate(1.3)},
    },
    "answers": {
        "max_new_tokens": 120,
        "base": side(58.8),
        "tuned": side(76.1),
        "author": {"words": estimate(110.0), "distinct_3": estimate(0.99, 0.002)},
        "author_ended": 0.43,
        "difference": {"words": estimate(17.3, 5), "distinct_3": estimate(0.0)},
    },
    "rubrics": [
        {
            "name": "comfyui",
            "about": "Prompts with balanced weights.",
            "base": estimate(0.12, 0.08) | {"answers": 60},
            "tuned": estimate(0.83, 0.09) | {"answers": 60},
            "author": None,
            "difference": estimate(0.71),
            "rules": [{"rule": "brackets balanced", "base": 0.7, "tuned": 0.95, "author": None}],
            "examples": [{"index": 11, "failed": ["words 20 to 120: 9", "brackets balanced: no"]}],
        }
    ],
    "judge": {
        "model": "a-judge",
        "wins": 70,
        "ties": 20,
        "losses": 28,
        "unread": 2,
        "asked": 120,
        "rate": estimate(0.68, 0.08),
        "same_in_both_orders": 0.81,
    },
    "checkpoints": [
        {
            "step": 12 * n,
            "eval_loss": 4.0 - n / 10,
            "score": {"score": 20.0 * n, "low": 18.0 * n, "high": 22.0 * n, "reason": ""},
            "longest_words": 5 + n,
            "copied_share": 0.001,
            "heldout_copied_share": 0.002,
            "perplexity": estimate(60.0 - n, 2),
        }
        for n in range(1, 5)
    ],
    "prompts": {"asked": 55, "planned": 60},
}
