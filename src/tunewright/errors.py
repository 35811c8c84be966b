"""Every failure a user can cause: its code, exit code, meaning and way out."""

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Code:
    """What an error code stands for.

    Attributes:
        exit_code: Exit code of the process.
        meaning: What has happened, in one sentence.
        fix: What usually helps, in one sentence.
    """

    exit_code: int
    meaning: str
    fix: str


CODES: Mapping[str, Code] = {
    "E_GATE_VERDICT": Code(
        1,
        "The comparison found the tuned model overfitted, memorised or degraded, or a gate failed, so it is not published.",
        "Read the report, train again with the advice it gives, or publish with `--force --reason TEXT`.",
    ),
    "E_GATE_MERGE": Code(
        1,
        "The merged model does not compute what the base with its adapter computes.",
        "Serve the adapter unmerged: `tunewright serve RUN --what adapter`. If the figures are good enough for you, raise "
        "`merge.max_mean_kl` or lower `merge.min_top1_agreement`.",
    ),
    "E_GATE_EXPORT": Code(
        1,
        "The GGUF file does not tokenise or compute as the merged model does.",
        "Look at the figures. If only small types fail, leave them out of `export.quantization`; if all fail, please report it.",
    ),
    "E_MACHINE": Code(
        1,
        "Something on this machine has to be mended before everything works.",
        "Do what stands beside it, then `tunewright doctor` once more.",
    ),
    "E_STOPPED": Code(
        1,
        "It was decided to stop the run: at warnings about the data, or at the verdict.",
        "Look at what it says; the command without what stopped it (`--on-warnings stop`, `--on-verdict stop`) goes on from there, "
        "with `--yes` without asking.",
    ),
    "E_USAGE": Code(2, "The command line is not understood.", "Type the command with `--help`."),
    "E_CONFIG_FILE": Code(
        2, "The config file is missing or is not YAML.", "Correct the named line, or the path."
    ),
    "E_CONFIG_KEY": Code(
        2,
        "The config has a key that Tunewright does not know.",
        "Use the suggested key, or delete it.",
    ),
    "E_CONFIG_VALUE": Code(
        2,
        "A config value has the wrong type or is out of range.",
        "Give a value as the message says.",
    ),
    "E_ENGINE": Code(
        2,
        "The engine that was asked for cannot serve this model here.",
        "Leave `--engine` out: one that can is chosen.",
    ),
    "E_NAME": Code(
        2,
        "A name cannot be used as a file or version name.",
        "Use letters, digits, dot, hyphen and underscore; start with a letter or digit.",
    ),
    "E_NOT_FOUND": Code(2, "A file or folder that was named is not there.", "Check the path."),
    "E_DATA_ROW": Code(
        3, "A row of the data cannot be read or used.", "Correct the named line, or remove it."
    ),
    "E_DATA_EMPTY": Code(
        3, "There is too little text to make a dataset of.", "Add text, or ask for shorter chunks."
    ),
    "E_COLUMNS": Code(
        3,
        "The rows have no form that Tunewright knows, so it cannot tell question from answer.",
        "Say which column plays which role, as the message shows: `prepare.columns`.",
    ),
    "E_PREFERENCE": Code(
        3,
        "The data are preference pairs (`chosen`, `rejected`), which supervised fine-tuning does not use.",
        "Train on the chosen answers: `--set prepare.columns.completion=chosen`.",
    ),
    "E_DUPLICATE": Code(
        3,
        "A row is an exact copy of another, and `check.allow_duplicates` is false.",
        "Remove it; `tunewright check ... --fix OUT` does.",
    ),
    "E_SECRET": Code(
        3,
        "A password, key or token is in the text: a model can learn it and say it to anyone.",
        "Revoke it, and take it out: `tunewright check ... --fix OUT` does; or set "
        "`check.allow_secrets=true`.",
    ),
    "E_TOO_LONG": Code(
        3,
        "A row is longer than `train.max_length`, and `train.excess_length_strategy` is `raise`.",
        "Raise `train.max_length`, or `--set train.excess_length_strategy=truncate` (or split, or drop).",
    ),
    "E_COVERAGE": Code(
        3,
        "A part of the manuscript would be in no chunk, or in two.",
        "This is a fault in Tunewright: report it with the text around the place.",
    ),
    "E_LEAK": Code(
        3,
        "The same or nearly the same text is on both sides of the split.",
        "Run `tunewright prepare` again: it keeps near copies on one side.",
    ),
    "E_NOTHING_TO_LEARN": Code(
        3,
        "After cutting rows to the length limit too few rows have a token left to learn from.",
        "Raise `train.max_length`, or make the prompts shorter.",
    ),
    "E_EOS_NOT_LEARNED": Code(
        3,
        "The end-of-sequence token is missing from the trained tokens.",
        "Raise `train.max_length` so that no answer is cut, or correct the chat template.",
    ),
    "E_ARTIFACT_MISSING": Code(
        4, "A stage's output that is needed is not there.", "Run the named stage first."
    ),
    "E_ARTIFACT_INVALID": Code(
        4,
        "A file differs from its manifest, or is not what it should be.",
        "Make the artifact again.",
    ),
    "E_GGUF_INVALID": Code(
        4,
        "The GGUF file is cut off, or its header or tensor table contradicts itself: llama.cpp is not "
        "given it.",
        "Download or export it again.",
    ),
    "E_QUANTIZE": Code(
        4,
        "llama.cpp's quantisation ended with an error; nothing of the file is kept.",
        "Read its last words; choose another type of `export.quantization`.",
    ),
    "E_DIGEST_MISMATCH": Code(
        4, "A file in the store is not the one that was published.", "Publish again, or roll back."
    ),
    "E_NO_VALID_CHECKPOINT": Code(
        4,
        "There are checkpoints of the run, and none of those that may be used is whole.",
        "`tunewright train ... --resume PATH` takes another; or `tunewright train ... --restart` begins again at step 0.",
    ),
    "E_MODEL": Code(
        4,
        "The folder is not a model that can be loaded here.",
        "Name a folder with config.json, tokenizer.json and *.safetensors, or a Hub id.",
    ),
    "E_CONVERTER": Code(
        4,
        "The converter of the llama.cpp checkout that was named did not write the model.",
        "Read what it says; update the checkout, or stop before the export: `tunewright run ... --until merge`.",
    ),
    "E_DISK_SPACE": Code(
        5, "There is not enough disk space for the output.", "Free space, or change `output_dir`."
    ),
    "E_OOM": Code(
        5,
        "There is not enough memory, even for one row at a time; or for the proof of a merge or an export.",
        "Lower `train.max_length`, set `train.load_in_4bit=true`, or take a smaller base.",
    ),
    "E_STORE_FS_UNSUPPORTED": Code(
        5,
        "The file system cannot do what a store rests on: renames that replace nothing in silence, locks.",
        "Put the store on a local disk, or on a network file system with locks.",
    ),
    "E_EXISTS": Code(
        2, "What would be written is there already.", "Name another place, or move it away."
    ),
    "E_IO": Code(
        5, "The operating system refused to read or write a file.", "Check permissions and space."
    ),
    "E_WORKER_DIED": Code(
        5,
        "A process that makes batches beside the training has died; the checkpoints are whole.",
        "Run the same command again: it goes on; `--set train.dataloader_num_workers=0` does without them.",
    ),
    "E_TIME": Code(
        5,
        "There was not enough time for a single batch of answers.",
        "Raise `compare.max_minutes`, or lower `compare.batch_size` or `compare.max_new_tokens`.",
    ),
    "E_PORT": Code(
        5,
        "The address cannot be bound.",
        "Choose another with `--port`, or an address of this machine with `--host`.",
    ),
    "E_RUN_LOCKED": Code(
        6, "Another process is writing the same output.", "Wait for it, or change `output_dir`."
    ),
    "E_VERSION_EXISTS": Code(
        6, "The store already has this version.", "Leave the version out, or name another."
    ),
    "E_RESUME_MISMATCH": Code(
        7,
        "The run was started from something else: its data, base, template or options have changed.",
        "Put it back; or `tunewright train ... --restart` begins again at step 0.",
    ),
    "E_RESUME_ENV": Code(
        7,
        "The run was started on another machine or with other libraries, so it cannot go on bit for bit "
        "the same.",
        "Resume where it was started; or `tunewright train ... --allow-inexact` goes on all the same.",
    ),
    "E_HUB": Code(
        8,
        "The Hub refused, or could not be reached.",
        "Check the name, the network and HF_TOKEN; then run the command again.",
    ),
    "E_ENDPOINT": Code(
        8,
        "An OpenAI-compatible endpoint refused, or could not be reached.",
        "Check address, model name and key, and that the server runs.",
    ),
    "E_UNSAFE_FORMAT": Code(
        9,
        "The file is of a kind that can run code when loaded.",
        "Take the same model as safetensors, or rewrite its weights: `tunewright convert OLD NEW`.",
    ),
    "E_UNSAFE_PATH": Code(
        9,
        "A link, or a file behind one, leads out of the folder that it is in.",
        "Copy the file into the folder, or name it as a source of its own.",
    ),
    "E_SECRET_IN_ARTIFACT": Code(
        9,
        "A file that was to be published holds what looks like a password, key or token.",
        "Revoke it, take it out of the data, and make the dataset again.",
    ),
    "E_TEMPLATE": Code(
        9,
        "The chat template cannot be rendered, or does not write the messages as they are.",
        "Correct the template in the model's folder.",
    ),
    "E_TEMPLATE_UNSAFE": Code(
        9,
        "The chat template reaches for what a template has no need of, such as Python's own objects.",
        "Do not use this model before you know why; model.chat_template takes another template.",
    ),
    "E_TEMPLATE_LIMIT": Code(
        9,
        "The chat template takes more time or memory than a template may: 2 seconds of a processor, 256 MB.",
        "Do not use this model before you know why; model.chat_template takes another template.",
    ),
    "E_DIVERGED": Code(
        10,
        "The training loss exploded, or is no number any more.",
        "Lower `train.learning_rate`, or look at the named rows.",
    ),
    "E_INTERNAL": Code(
        70, "This is a fault in Tunewright.", "Run again with `--debug` and report the output."
    ),
}

WARNINGS: Mapping[str, Code] = {
    "W_CUT": Code(
        0,
        "Rows are longer than `train.max_length`; what they lose is counted.",
        "Raise `train.max_length`, or `--set train.excess_length_strategy=split`.",
    ),
    "W_UNLEARNED": Code(
        0,
        "After the cut some rows have no token left to learn from.",
        "Raise `train.max_length`, or make the prompts shorter.",
    ),
    "W_DUPLICATE": Code(
        0, "Rows are exact copies of another.", "`tunewright check ... --fix OUT` takes them out."
    ),
    "W_NEAR_DUPLICATE": Code(
        0,
        "Rows are nearly the same as another; the split keeps them on one side.",
        "Fine if it is meant; `tunewright check ... --fix OUT` takes them out.",
    ),
    "W_LEAK": Code(
        0,
        "The same or nearly the same text is on both sides of the split, which was allowed.",
        "Do not trust the held-out loss.",
    ),
    "W_SECRET": Code(
        0, "What looks like a secret is in the text, which was allowed.", "Revoke it."
    ),
    "W_EMAIL": Code(
        0, "E-mail addresses are in the text.", "Take them out where they belong to people."
    ),
    "W_SPECIAL": Code(
        0,
        "Special tokens are typed in the text.",
        "Nothing to do: they are trained on as text, unless `train.allow_special` is true.",
    ),
    "W_LANGUAGE": Code(
        0,
        "The texts are in several languages.",
        "Look at the rows if you meant to train on one.",
    ),
    "W_OUTLIER": Code(
        0,
        "Rows are far longer or shorter than the others.",
        "Look at them: they are often mistakes of a conversion.",
    ),
    "W_ACCEL_OFF": Code(
        0,
        "The accelerated path did not come to the numbers of the plain one, so the plain one is used.",
        "Nothing to do; please report it with the model's name. `--set accel=off` leaves the check out.",
    ),
    "W_CKPT_SKIPPED": Code(
        0,
        "A checkpoint is damaged, so an older one is used; the result is the same.",
        "Nothing to do; where it happens often, look at the disk.",
    ),
    "W_SMALL": Code(
        0,
        "There are few rows, so that figures on the held-out side are uncertain.",
        "Add rows where you can.",
    ),
}
"""What a check says without refusing the data."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where and what next.

    Attributes:
        code: A key of CODES.
        message: One sentence.
        where: `file:line`, a path, or a key.
        fix: What to do, a command where there is one.
    """

    code: str
    message: str
    where: str
    fix: str


def io_fix(error: OSError) -> str:
    """Return what to do about what the system refused: E_IO's fix for this error number."""
    place = Path(str(error.filename)) if error.filename else None
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Change its permissions, or name another place."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free space on the disk, or name another place."
    if place is not None and error.errno == errno.EISDIR:
        return f"{place} is a folder: name a file."
    if place is not None and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        there = next((p for p in (place, *place.parents) if p.exists()), place)
        if there.is_file():
            return f"{there} is a file: name another place, or move it away."
        if there not in (place, place.parent):
            return f"Make the folder {place.parent} first."
    return CODES["E_IO"].fix


class TunewrightError(Exception):
    """One or more problems that a user can solve.

    Attributes:
        problems: All that was found, at least one.
        details: What else is known, as JSON values; `--json` prints it.
    """

    def __init__(
        self, problems: Iterable[Problem], details: Mapping[str, Any] | None = None
    ) -> None:
        self.problems = tuple(problems)
        self.details = details or {}
        super().__init__("\n".join(f"{p.code}: {p.message} ({p.where})" for p in self.problems))

    @property
    def exit_code(self) -> int:
        """Exit code of the first problem."""
        return CODES[self.problems[0].code].exit_code


def failure(code: str, message: str, *, where: object, fix: str | None = None) -> TunewrightError:
    """Return an error with one problem, to be raised; `fix` defaults to the code's own.

    Source: the form is RELIABILITY.md's contract (code, where, fix).
    """
    return TunewrightError([Problem(code, message, str(where), fix or CODES[code].fix)])


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, 300 characters at most and without its period; else its type."""
    said = next(iter(str(error).strip().splitlines()), "")[:300].rstrip(".")
    return said or type(error).__name__
