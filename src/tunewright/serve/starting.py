"""The commands that start several agents: one vLLM for adapters that fit into one, and Ollama for each."""

import json
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tunewright.artifacts import sha256
from tunewright.config.schema import Config
from tunewright.serve import vllm
from tunewright.serve.servable import AdapterModel

TINY = "tunewright/tiny"
READS = ("tokenizer.json", vllm.TEMPLATE)
"""What says how an adapter reads a text."""


def lines_of_agents(
    configs: Mapping[str, Config], adapters: Mapping[str, Path], modelfiles: Mapping[str, Path]
) -> list[str]:
    """Return shell lines, and comments where one cannot be given.

    One vLLM reads one tokenizer and one chat template for all adapters that it serves, and has one base: those
    with others get a line of their own.

    Args:
        configs: Of each agent, by its name; all of one base.
        adapters: Folder of the adapter, of those that have one.
        modelfiles: Modelfile for Ollama, of those that have one.
    """
    found: list[str] = []
    groups: dict[object, list[tuple[AdapterModel, dict[str, Any]]]] = {}
    for agent, path in adapters.items():
        config = configs[agent]
        model = AdapterModel(
            agent,
            f"the adapter of {agent}",
            path.absolute(),
            _base(config.model.model_name_or_path),
            config.model.revision,
            in_4_bits=config.train.load_in_4bit,
        )
        try:
            settings = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
            reads = tuple(sha256(path / n) for n in READS if (path / n).is_file())
        except (OSError, ValueError):
            found.append(
                f"# {agent}: the adapter in {path} cannot be read; tunewright verify tells."
            )
            continue
        reasons = vllm.unfit(model, settings)
        if reasons:
            found.append(
                f"# {agent} is not for vLLM: {'; '.join(reasons)}. Serve the merged model."
            )
            continue
        groups.setdefault((reads, model.in_4_bits), []).append((model, settings))
    for number, group in enumerate(groups.values()):
        models, settings = zip(*group, strict=True)
        config = configs[models[0].name]
        place = vllm.Place(
            config.serve.host,
            config.serve.port + number,
            max(_context(configs[model.name]) for model in models),
            config.export.temperature,
            config.export.top_p,
        )
        found.append(shlex.join(vllm.command_of_agents(models, settings, place)))
    for agent, file in modelfiles.items():
        # As `export` names it where Ollama is installed.
        name = f"tunewright/{configs[agent].name.lower()}"
        create = shlex.join(["ollama", "create", name, "-f", str(file.absolute())])
        found.append(f"{create} && ollama run {name}")
    return found


def _context(config: Config) -> int:
    return config.serve.max_model_len or config.export.num_ctx


def _base(name: str) -> str:
    """Return a base as vLLM finds it: the bundled one has a name that only Tunewright knows."""
    folder = resources.files("tunewright.models") / "assets" / "tiny"
    return str(folder) if name == TINY else name
