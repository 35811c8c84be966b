"""A small run on the bundled base that many tests share, and what it takes to make another."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import no_secrets
import pytest
from no_tracebacks import pytest_runtest_makereport  # noqa: F401 - a hook, called by its name
from support import SAMPLES, SMALL

# Tests that fork or start llama.cpp beside torch would otherwise oversubscribe a small machine.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# Every process that a test starts would compile all of our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A developer's Ollama gets none of the models of the tests: nobody listens there.
os.environ["OLLAMA_HOST"] = "127.0.0.1:1"

no_secrets.watch()

# A job that a script starts in the background ignores Ctrl-C, and so would every process it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "test_demo.py", "test_training.py", "test_pipeline.py", "test_docs.py", "test_agents.py",
    "test_compare_others.py", "test_chain.py", "test_methods.py", "test_sharded_runs.py",
    "test_equal_runs.py", "test_compare.py", "test_planted.py", "test_stages.py",
)  # fmt: skip
"""Files that begin first, so that no worker is left alone with a long one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps them there."""
    rank = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of every later collection: each training asks for one of a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread():
    """Torch computes with one thread in the tests of a module: small products gain nothing by more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def manuscript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the beginnings of the first six files of the sample manuscript."""
    folder = tmp_path_factory.mktemp("manuscript")
    for file in sorted((SAMPLES / "manuscript").glob("*.txt"))[:6]:
        paragraphs = file.read_text(encoding="utf-8").split("\n\n")
        beginning = "\n\n".join(paragraphs[: len(paragraphs) * 2 // 3])
        (folder / file.name).write_text(beginning + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_config(tmp_path_factory: pytest.TempPathFactory, manuscript: Path) -> Callable:
    """Return a function that gives a small config in a folder of its own."""
    from tunewright import load_config

    def make(*overrides: str):
        out = tmp_path_factory.mktemp("run")
        base = [f"prepare.source={manuscript}", f"output_dir={out / 'run'}", "publish.agent=tests"]
        return load_config(
            "preset:demo", [*base, f"publish.store={out / 'store'}", *SMALL, *overrides]
        )

    return make


@pytest.fixture(scope="session")
def trained(make_config: Callable):
    """Config, dataset and adapter of a small run. Shared: read only."""
    from tunewright import prepare, train

    config = make_config()
    dataset = prepare(config)
    return config, dataset, train(config, dataset)


@pytest.fixture(scope="session")
def served_run(tmp_path_factory: pytest.TempPathFactory):
    """Config of a run with adapter, merged model, F32 GGUF and a published version. Shared: read only."""
    from served import make_run

    return make_run(tmp_path_factory.mktemp("served"))
