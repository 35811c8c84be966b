"""Fuzzing of a reader by libFuzzer: `python fuzz.py TARGET CORPUS SECONDS`; exit code 0: nothing was found.

A process of its own for each target, as libFuzzer ends it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["tunewright.data", "tunewright.models.gguf_file"]):
    from faults.fuzz_targets import TARGETS


def main() -> None:
    """Fuzz one target for so many seconds."""
    name, corpus, seconds = sys.argv[1:]
    call, _ = TARGETS[name]
    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
    atheris.Setup(
        [sys.argv[0], corpus, *limits, "-print_final_stats=1", f"-artifact_prefix={corpus}/"], call
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
