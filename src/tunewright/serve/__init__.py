"""A model to an OpenAI-compatible endpoint, or to a chat in the terminal."""

from collections.abc import Callable

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener
from tunewright.serve.servable import AdapterModel, FolderModel, GgufModel, Servable, servable_of

__all__ = [
    "AdapterModel",
    "FolderModel",
    "GgufModel",
    "Servable",
    "chat",
    "chat_compared",
    "servable_of",
    "serve",
]


def serve(config: Config, model: Artifact | Servable, *, listener: Listener = SILENT) -> None:
    """Serve a model until Ctrl-C, SIGTERM or SIGHUP; then return.

    Routes: /v1/chat/completions, /v1/completions (both with streaming), /v1/models, /health. What is
    served, by which engine and why, the URL, and a line to try it with are said to the listener. With
    TUNEWRIGHT_API_KEY in the environment every request but /health has to show it.

    Args:
        config: Options of the run; `serve`, `export`.
        model: What is served: an adapter, a merged model, exported files (the last type), or one of
            AdapterModel, FolderModel, GgufModel.
        listener: Is told the URL.

    Raises:
        TunewrightError: E_PORT, the address cannot be bound. E_CONFIG_VALUE, others could use it without a
            key. E_ENGINE, the engine that was asked for cannot serve it. E_NOT_FOUND, E_MODEL,
            E_GGUF_INVALID or E_ARTIFACT_INVALID, the model is missing or broken.
    """
    from tunewright.serve._serve import serve_model

    serve_model(config, _servable(config, model), listener=listener)


def chat(
    config: Config,
    model: Artifact | Servable,
    *,
    ask: Callable[[], str | None],
    say: Callable[[str], None],
) -> None:
    """Hold a conversation with a model until `ask` returns None, or Ctrl-C while nothing is answered.

    Ctrl-C while an answer comes ends that answer.

    Args:
        config: Options of the run; `export`, `serve.max_model_len`.
        model: As for `serve`.
        ask: Returns what the user says next, None to end. Empty lines are skipped.
        say: Receives the answer piece by piece, and a line end after it; or that the question is too long.

    Raises:
        TunewrightError: E_NOT_FOUND, E_MODEL, E_GGUF_INVALID or E_ARTIFACT_INVALID, the model is missing
            or broken.
    """
    from tunewright.serve._chat import chat_with

    def told(_side: str, piece: str) -> None:
        say(piece or "\n")

    chat_with(config, _servable(config, model), ask=ask, say=told, compare=False)


def chat_compared(
    config: Config,
    model: Artifact | Servable,
    *,
    ask: Callable[[], str | None],
    say: Callable[[str, str], None],
) -> None:
    """Hold the same conversation with base and tuned model; see `chat`.

    Each remembers its own answers, and both sample with the same seeds: what differs is the model.

    Args:
        config: Options of the run; `seed`, `export`, `serve.max_model_len`.
        model: As for `serve`; its base has to be known.
        ask: As for `chat`.
        say: Receives `base` or `tuned` and a piece of its answer; an empty piece ends the answer.

    Raises:
        TunewrightError: E_USAGE, the base is not known; else as `chat`.
    """
    from tunewright.serve._chat import chat_with

    chat_with(config, _servable(config, model), ask=ask, say=say, compare=True)


def _servable(config: Config, model: Artifact | Servable) -> Servable:
    return servable_of(config, model) if isinstance(model, Artifact) else model
