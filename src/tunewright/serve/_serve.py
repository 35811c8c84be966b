"""Serves until it is interrupted: an engine behind the front, or vLLM as a process of its own."""

import shlex
import threading

from tunewright.config.schema import Config
from tunewright.errors import failure
from tunewright.events import Listener
from tunewright.models._folders import TINY, resolve_model
from tunewright.serve import vllm
from tunewright.serve._open import choice, opened, settings_of
from tunewright.serve.answering import Defaults
from tunewright.serve.child import interruptible, run_child
from tunewright.serve.engine import context_of
from tunewright.serve.front import Site, front
from tunewright.serve.guard import KEY, api_key, is_local, require_guarded
from tunewright.serve.servable import AdapterModel, FolderModel, Servable


def serve_model(config: Config, model: Servable, *, listener: Listener) -> None:
    """Serve until interrupted; see `tunewright.serve.serve`."""
    options = config.serve
    key = api_key()
    require_guarded(options.host, key, allow_without_key=options.allow_without_key)
    engine, reason = choice(config, model)
    if engine == "vllm":
        _require_local(options.host, allowed=options.allow_without_key)
    listener.said(f"Serving {model.words} as '{model.name}'.")
    listener.said(f"engine: {engine}, since {reason}")
    if not is_local(options.host):
        keeps = f"who has the key in {KEY}" if key else "anyone who can reach it"
        listener.said(f"{options.host} can be used by {keeps}; what is sent is not encrypted.")
    with interruptible():
        if engine == "vllm" and isinstance(model, AdapterModel | FolderModel):
            _serve_by_vllm(config, model, key, listener)
        else:
            _serve_here(config, model, key, listener)


def _require_local(host: str, *, allowed: bool) -> None:
    """Refuse to let others reach vLLM: its key covers `/v1` and not every other path that answers.

    Raises:
        TunewrightError: E_CONFIG_VALUE.
    """
    if not is_local(host) and not allowed:
        raise failure(
            "E_CONFIG_VALUE",
            f"Anyone who can reach {host} could use vLLM: its key does not cover every path.",
            where="serve.host",
            fix="Bind 127.0.0.1 behind a proxy that passes only `/v1` on; or `--engine transformers`; "
            "or `--allow-without-key`, where that is meant.",
        )


def _serve_here(config: Config, model: Servable, key: str | None, listener: Listener) -> None:
    defaults = Defaults(config.export.temperature, config.export.top_p)
    with opened(config, model) as engine:
        site = Site(engine, model.name, config.serve.host, key, defaults, listener)
        with front(site, config.serve.port) as url:
            listener.said(f"URL: {url}/v1 (Ctrl-C ends it), {engine.context:,} tokens of context")
            shown = f"-H 'Authorization: Bearer '${KEY} " if key else ""
            listener.said(
                f"Try it: curl {url}/v1/chat/completions {shown}-H 'Content-Type: application/json' "
                '-d \'{"messages": [{"role": "user", "content": "Hello"}]}\''
            )
            threading.Event().wait()


def _serve_by_vllm(
    config: Config, model: AdapterModel | FolderModel, key: str | None, listener: Listener
) -> None:
    """Start vLLM, and end it when we are ended.

    Raises:
        TunewrightError: E_ENGINE, it has ended by itself.
    """
    named = model.base if isinstance(model, AdapterModel) else str(model.path)
    folder = resolve_model(named, model.revision if isinstance(model, AdapterModel) else None)
    own = config.serve
    sampling = (config.export.temperature, config.export.top_p)
    place = vllm.Place(own.host, own.port, context_of(config, folder), *sampling)
    # The bundled base has a name that only Tunewright knows.
    words = vllm.command(model, settings_of(model), place)
    words = [str(folder) if word == TINY else word for word in words]
    listener.said(f"$ {shlex.join(words)}")
    status = run_child(words, {vllm.KEY: key} if key else {})
    raise failure("E_ENGINE", f"vLLM has ended with exit code {status}.", where=shlex.join(words))
