"""The commands that let a model answer: an endpoint, and a chat in the terminal."""

import click

from tunewright.cli.options import SET, given, note

TARGET = click.argument("target", metavar="TARGET")
WHAT = click.option(
    "--what",
    metavar="PART",
    help="Of a run or a version: adapter, checkpoint-N, merged, gguf, or an exported type such as Q8_0. "
    "Otherwise its GGUF file, else the merged model, else the adapter.",
)
CONTEXT = click.option(
    "--max-model-len",
    type=click.IntRange(16),
    metavar="TOKENS",
    help="serve.max_model_len: question and answer together.",
)


@click.command()
@TARGET
@WHAT
@SET
@click.option("--host", help="Address to bind; serve.host otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to bind; serve.port otherwise.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "llama.cpp", "transformers", "vllm"]),
    help="serve.engine: what computes the answers.",
)
@CONTEXT
@click.option(
    "--allow-without-key",
    is_flag=True,
    default=None,
    help="Let anyone who can reach the address use it, without TUNEWRIGHT_API_KEY.",
)
def serve(target: str, what: str | None, overrides: tuple[str, ...], **options: object) -> None:
    """Serve a model: /v1/chat/completions, /v1/completions, /v1/models, as OpenAI does.

    TARGET is a config, a run, an adapter, a checkpoint, a merged model, a GGUF file, or `store:AGENT`.
    With TUNEWRIGHT_API_KEY in the environment every request has to show it.

    Example: tunewright serve runs/author --port 8080
    """
    from tunewright.cli import render
    from tunewright.serve import serve as serve_forever
    from tunewright.serving import servable

    flags = given(**{f"serve__{name}": value for name, value in options.items()})
    with render.progress() as listener:
        config, model = servable(target, (*overrides, *flags), what=what, note=listener.said)
        serve_forever(config, model, listener=listener)


@click.command()
@TARGET
@WHAT
@SET
@click.option("--compare", is_flag=True, help="Let base and tuned answer side by side.")
@click.option("--system", help="System message; export.system otherwise.")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), help="export.temperature otherwise; 0: no chance."
)
@CONTEXT
def chat(
    target: str,
    what: str | None,
    overrides: tuple[str, ...],
    compare: bool,
    system: str | None,
    temperature: float | None,
    max_model_len: int | None,
) -> None:
    """Talk to a model in the terminal; an empty line ends it, Ctrl-C ends an answer.

    TARGET is a config, a run, an adapter, a checkpoint, a merged model, a GGUF file, or `store:AGENT`.

    Example: tunewright chat runs/author --compare
    """
    from tunewright.cli import conversation
    from tunewright.serve import chat as talk
    from tunewright.serve import chat_compared
    from tunewright.serving import servable

    flags = given(
        export__system=system,
        export__temperature=temperature,
        serve__max_model_len=max_model_len,
    )
    config, model = servable(target, (*overrides, *flags), what=what, note=note)
    note(f"{model.words}; an empty line ends the chat")
    if compare:
        with conversation.columns() as say_both:
            chat_compared(config, model, ask=conversation.ask, say=say_both)
    else:
        talk(config, model, ask=conversation.ask, say=conversation.say)
