"""What can be compared with the base in place of a run's adapter."""

from dataclasses import dataclass
from pathlib import Path

from tunewright.config.names import usable_name


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the run's training.

    Attributes:
        step: Optimizer steps done.
        path: Its folder, with `adapter_model.safetensors`.
        eval_loss: Held-out loss at that step, nats a token; None if it is not known.
    """

    step: int
    path: Path
    eval_loss: float | None = None

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"checkpoint {self.step}"


@dataclass(frozen=True)
class ModelFolder:
    """A model in a folder, such as a merged one.

    Attributes:
        path: Its folder.
        name: What it is, in words.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, which llama.cpp runs in this process.

    Attributes:
        path: The file.
        name: What it is, in words.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Endpoints:
    """Two OpenAI-compatible endpoints in place of base and tuned.

    Attributes:
        baseline_url: Up to `/v1`.
        tuned_url: Likewise.
        baseline_model: As the server names it; None: the only one that it lists.
        tuned_model: Likewise.
    """

    baseline_url: str
    tuned_url: str
    baseline_model: str | None = None
    tuned_model: str | None = None


Other = Checkpoint | ModelFolder | GgufFile | Endpoints


def folder_of(other: Other | None) -> str:
    """Return where in a run a comparison is written: that of the adapter is the run's evaluation."""
    match other:
        case None:
            return "evaluation"
        case Endpoints():
            name = "endpoints"
        case Checkpoint():
            name = f"checkpoint-{other.step}"
        case _:
            name = usable_name(other.name) or "other"
    return f"comparisons/{name}"
