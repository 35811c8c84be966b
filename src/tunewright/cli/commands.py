"""The commands. Each parses, calls one function, and prints what it returns."""

import json
from collections.abc import Callable
from typing import Any, cast

import click

Function = Callable[..., Any]

SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override an option, for example --set train.learning_rate=1e-4. May be repeated.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: tunewright demo. Every command takes --debug, which shows tracebacks.",
)
@click.version_option(package_name="tunewright")
def cli() -> None:
    """From your own text to a fine-tuned language model you can trust."""
    from tunewright.config.load import read_dotenv

    read_dotenv()


def _target(function: Function) -> Function:
    return click.argument("target", metavar="CONFIG|RUN")(SET(JSON(function)))


def _stage(
    name: str, target: str, overrides: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    from tunewright import pipeline
    from tunewright.cli import render

    config = pipeline.config_of(target, overrides)
    with render.progress() as listener:
        artifact = pipeline.run_stage(
            config, cast("pipeline.Stage", name), listener=listener, **options
        )
    render.artifact(artifact, as_json=as_json)


def _run(
    target: str, overrides: tuple[str, ...], *, until: str | None = None, as_json: bool = False
) -> None:
    from tunewright import pipeline
    from tunewright.cli import render

    config = pipeline.config_of(target, overrides)
    try:
        with render.progress() as listener:
            outcomes = pipeline.run(
                config, until=cast("pipeline.Stage | None", until), listener=listener
            )
    except pipeline.PublishingRefusedError as refusal:
        render.outcomes(config, refusal.outcomes, as_json=as_json)
        raise
    render.outcomes(config, outcomes, as_json=as_json)


@cli.command()
@SET
@JSON
def demo(overrides: tuple[str, ...], as_json: bool) -> None:
    """Run the whole pipeline on bundled data and the bundled base: offline, minutes.

    Example: tunewright demo
    """
    _run("preset:demo", overrides, as_json=as_json)


@cli.command()
@_target
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
def run(target: str, overrides: tuple[str, ...], as_json: bool, until: str | None) -> None:
    """Run all stages; finished ones are skipped, an interrupted one starts again.

    Example: tunewright run author.yaml --until compare
    """
    from tunewright.pipeline import STAGES

    if until is not None and until not in STAGES:
        raise click.BadParameter(f"'{until}' is not a stage: {', '.join(STAGES)}.")
    _run(target, overrides, until=until, as_json=as_json)


@cli.command()
@_target
def prepare(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Make a dataset of raw text or rows: chunks, provenance, split by source.

    Example: tunewright prepare author.yaml --set prepare.eval_split=0.2
    """
    _stage("prepare", target, overrides, as_json)


@cli.command()
@_target
def check(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a dataset, or a .jsonl file: rows, lengths, masks, copies, leaks.

    Example: tunewright check rows.jsonl
    """
    if target.endswith(".jsonl"):
        if overrides:
            raise click.UsageError("--set has no meaning for a file of rows.")
        from pathlib import Path

        from tunewright.cli import render
        from tunewright.data import check_file

        with render.progress() as listener:
            counts = check_file(Path(target), listener=listener)
        render.facts(counts, as_json=as_json)
        return
    _stage("check", target, overrides, as_json)


@cli.command()
@_target
def plan(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell what can be known before training: steps, memory, disk, and why.

    Example: tunewright plan author.yaml --json
    """
    _stage("plan", target, overrides, as_json)


@cli.command()
@_target
def train(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train a LoRA adapter on the dataset and keep the best evaluation.

    Example: tunewright train author.yaml
    """
    _stage("train", target, overrides, as_json)


@cli.command()
@_target
def compare(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Compare base and tuned: samples, transfer score, perplexity, memorisation.

    Example: tunewright compare runs/author
    """
    _stage("compare", target, overrides, as_json)


@cli.command()
@_target
def merge(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Merge the adapter into the base, proven equal.

    Example: tunewright merge runs/author
    """
    _stage("merge", target, overrides, as_json)


@cli.command()
@_target
def export(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Write GGUF files and an Ollama Modelfile, proven against the merged model.

    Example: tunewright export runs/author --set export.quantization=[Q8_0]
    """
    _stage("export", target, overrides, as_json)


@cli.command()
@_target
@click.option("--force", is_flag=True, help="Publish although a gate failed; it is recorded.")
def publish(target: str, overrides: tuple[str, ...], as_json: bool, force: bool) -> None:
    """Put adapter and GGUF into the local store as a new version.

    Example: tunewright publish runs/author --set publish.agent=critic
    """
    _stage("publish", target, overrides, as_json, force=force)


@cli.command()
@_target
def report(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Write one HTML page about a run.

    Example: tunewright report runs/author
    """
    _stage("report", target, overrides, as_json)


@cli.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
@click.option("--host", help="Address to bind; serve.host otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to bind; serve.port otherwise.")
def serve(target: str, overrides: tuple[str, ...], host: str | None, port: int | None) -> None:
    """Serve the exported model: /v1/chat/completions, /v1/completions, /v1/models.

    Example: tunewright serve runs/author --port 8080
    """
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.serve import serve as serve_forever

    given = {"host": host, "port": port}
    extra = [
        f"serve.{key}={json.dumps(value)}" for key, value in given.items() if value is not None
    ]
    config = pipeline.config_of(target, (*overrides, *extra))
    exported = pipeline.exported_of(config)
    with render.progress() as listener:
        serve_forever(config, exported, listener=listener)


@cli.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
def chat(target: str, overrides: tuple[str, ...]) -> None:
    """Talk to the exported model in the terminal; an empty line ends it.

    Example: tunewright chat runs/author
    """
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.serve import chat as talk

    config = pipeline.config_of(target, overrides)
    talk(config, pipeline.exported_of(config), ask=render.ask, say=render.say)


@cli.group()
def store() -> None:
    """Look into the local model store."""


ROOT = click.option("--store", "root", metavar="DIR", help="The store; MODEL_STORE_ROOT otherwise.")


def _root(root: str | None) -> Any:
    from pathlib import Path

    from tunewright.publish.store import existing, store_root

    return existing(Path(root) if root else store_root())


@store.command("list")
@ROOT
@JSON
def store_list(root: str | None, as_json: bool) -> None:
    """List all versions.

    Example: tunewright store list
    """
    from tunewright.cli import render
    from tunewright.publish.store import list_versions

    render.versions(list_versions(_root(root)), as_json=as_json)


@store.command("show")
@click.argument("agent")
@click.argument("adapter")
@click.argument("version")
@ROOT
def store_show(agent: str, adapter: str, version: str, root: str | None) -> None:
    """Print a version's manifest.

    Example: tunewright store show demo demo v20261121-1200
    """
    from tunewright.cli import render
    from tunewright.publish.store import show

    render.facts(show(_root(root), agent, adapter, version), as_json=True)


@store.command("verify")
@ROOT
def store_verify(root: str | None) -> None:
    """Hash every file of every version.

    Example: tunewright store verify
    """
    from tunewright.errors import TunewrightError
    from tunewright.publish.store import list_versions, verify

    problems = verify(_root(root))
    if problems:
        raise TunewrightError(problems)
    click.echo(f"{len(list_versions(_root(root)))} versions are as they were published.")


@store.command("resolve")
@click.argument("agent")
@ROOT
def store_resolve(agent: str, root: str | None) -> None:
    """Print the verified folder of an agent's current version.

    Example: tunewright store resolve demo
    """
    from tunewright.publish.store import resolve

    click.echo(resolve(_root(root), agent))


@store.command("rollback")
@click.argument("agent")
@click.argument("version")
@ROOT
def store_rollback(agent: str, version: str, root: str | None) -> None:
    """Make an older version an agent's current one.

    Example: tunewright store rollback demo v20261121-1200
    """
    from tunewright.publish.store import rollback

    click.echo(rollback(_root(root), agent, version))


@cli.group("config")
def config_group() -> None:
    """Show the resolved config, or the schema."""


@config_group.command("show")
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
def config_show(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the config with every default filled in.

    Example: tunewright config show preset:demo --set train.lora.r=8
    """
    from tunewright.config.load import dump_config
    from tunewright.pipeline import config_of

    config = config_of(target, overrides)
    click.echo(config.model_dump_json(indent=2) if as_json else dump_config(config).rstrip())


@config_group.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the config.

    Example: tunewright config schema > tunewright.schema.json
    """
    from tunewright.config.load import config_schema as schema

    click.echo(schema())
