"""Exported model to an OpenAI-compatible endpoint, or to a chat in the terminal."""

from collections.abc import Callable

from tunewright.artifacts import Artifact
from tunewright.config.schema import Config
from tunewright.events import SILENT, Listener

__all__ = ["chat", "serve"]


def serve(config: Config, exported: Artifact, *, listener: Listener = SILENT) -> None:
    """Serve the exported model until Ctrl-C or SIGTERM; then return.

    The URL, a line to try it with, and a warning for an address that others can reach are said to
    the listener. Routes: /v1/chat/completions, /v1/completions (both with streaming), /v1/models,
    /health.

    Args:
        config: Options of the run; `serve`, `export`.
        exported: The exported model; the last of its types is served.
        listener: Is told the URL.

    Raises:
        TunewrightError: E_PORT, the address cannot be bound. E_NOT_FOUND or E_ARTIFACT_INVALID, the
            GGUF file is missing or broken.
    """
    from tunewright.serve._serve import serve_model

    serve_model(config, exported, listener=listener)


def chat(
    config: Config,
    exported: Artifact,
    *,
    ask: Callable[[], str | None],
    say: Callable[[str], None],
) -> None:
    """Hold a conversation with the exported model until `ask` returns None, Ctrl-C or SIGTERM.

    Args:
        config: Options of the run; `export`.
        exported: The exported model.
        ask: Returns what the user says next, None to end. Empty lines are skipped.
        say: Receives the answer piece by piece, and a line end after it.

    Raises:
        TunewrightError: E_NOT_FOUND or E_ARTIFACT_INVALID, the GGUF file is missing or broken.
    """
    from tunewright.serve._serve import chat_with

    chat_with(config, exported, ask=ask, say=say)
