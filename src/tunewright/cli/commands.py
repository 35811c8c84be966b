"""The commands. Each parses, calls one function, and prints what it returns."""

from collections.abc import Callable
from typing import Any, cast

import click

from tunewright.cli import teams
from tunewright.cli.comparison import compare
from tunewright.cli.converting import convert
from tunewright.cli.doctor import doctor
from tunewright.cli.merging import merge
from tunewright.cli.options import (
    BAD_ROWS,
    JSON,
    MAX_BAD,
    SET,
    bad_rows,
    given,
    hyphened,
    note,
    refuse_together,
)
from tunewright.cli.pushing import push
from tunewright.cli.recipes import init
from tunewright.cli.running import demo, run, status
from tunewright.cli.serving import chat, serve
from tunewright.cli.store import store
from tunewright.cli.training import COMMANDS
from tunewright.cli.verify import verify
from tunewright.cli.watch import watch

Function = Callable[..., Any]


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": hyphened,
    },
    epilog="Start with: tunewright demo. Every command takes --debug, which shows tracebacks.",
)
@click.version_option(package_name="tunewright")
def cli() -> None:
    """From your own text to a fine-tuned language model you can trust."""
    from tunewright.config.load import read_dotenv, require_endpoint

    read_dotenv()
    require_endpoint()


def _target(function: Function) -> Function:
    return click.argument("target", metavar="CONFIG|RUN")(SET(JSON(function)))


def _stage(
    name: str,
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    agents: tuple[str, ...],
    **options: Any,
) -> None:
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.targets import config_of

    if team := teams.taken(target, overrides, agents):
        teams.stage(team, name, as_json=as_json, **options)
        return
    with render.progress() as listener:
        config = config_of(target, overrides, note=listener.said)
        artifact = pipeline.run_stage(
            config, cast("pipeline.Stage", name), listener=listener, **options
        )
    render.artifact(artifact, as_json=as_json)


@cli.command()
@_target
@BAD_ROWS
@MAX_BAD
@teams.AGENT
def prepare(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    agents: tuple[str, ...],
    on_bad_row: str | None,
    max_bad: str | None,
) -> None:
    """Make a dataset of manuscripts, storyboards or rows: provenance, split by source.

    Example: tunewright prepare author.yaml --set prepare.eval_split=0.2
    """
    flags = given(**bad_rows(on_bad_row, max_bad))
    _stage("prepare", target, (*overrides, *flags), as_json, agents)


@cli.command()
@click.argument("target", metavar="CONFIG|RUN|DATA")
@SET
@JSON
@click.option(
    "--show", type=click.IntRange(0, 1000), metavar="N", help="Print N rows, mask visible."
)
@click.option("--fix", "out", metavar="DIR", help="Write the repaired rows and what was changed.")
@click.option(
    "--against", metavar="DATA", help="Refuse near copies of the rows of a second dataset."
)
@BAD_ROWS
@MAX_BAD
@teams.AGENT
def check(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    agents: tuple[str, ...],
    show: int | None,
    out: str | None,
    against: str | None,
    on_bad_row: str | None,
    max_bad: str | None,
) -> None:
    """Check a dataset, or data: a file, a folder, hub:org/name. Rows, lengths, masks, copies, leaks.

    Example: tunewright check rows.jsonl --show 3
    """
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.errors import TunewrightError
    from tunewright.targets import is_described

    refuse_together(show=show, against=against, out=out)
    if team := teams.taken(target, (*overrides, *given(check__against=against)), agents):
        if show is not None or out is not None or on_bad_row or max_bad:
            message = "--show, --fix and --on-bad-row are for one agent: name its run, or its data."
            raise click.UsageError(message)
        teams.stage(team, "check", as_json=as_json)
        return
    if (on_bad_row or max_bad) and out is None and is_described(target):
        message = (
            "--on-bad-row and --max-bad act while a dataset is made, and this one is made already: "
            "use them with `tunewright prepare`, or with --fix."
        )
        raise click.UsageError(message)
    flags = given(
        check__show=show,
        check__against=against,
        **bad_rows(on_bad_row, max_bad),
    )
    try:
        with render.progress() as listener:
            found = pipeline.check_any(target, (*overrides, *flags), out=out, listener=listener)
    except TunewrightError as refusal:
        if not as_json:
            render.checked(refusal.details, show=show or 0)
        raise
    if as_json:
        render.facts(found, as_json=True)
    else:
        render.checked(found, show=show or 0)


@cli.command()
@_target
@click.option("--llama-cpp", metavar="DIR", help="Same as --set export.llama_cpp=DIR.")
@teams.AGENT
def export(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    agents: tuple[str, ...],
    llama_cpp: str | None,
) -> None:
    """Write GGUF files and an Ollama Modelfile, proven against the merged model.

    Example: tunewright export runs/author --set 'export.quantization=[Q8_0]'
    """
    given = () if llama_cpp is None else (f"export.llama_cpp={llama_cpp}",)
    _stage("export", target, (*overrides, *given), as_json, agents)


@cli.command()
@_target
@click.option("--force", is_flag=True, help="Publish although a gate failed; it is recorded.")
@click.option("--reason", metavar="TEXT", help="Why it is forced; recorded too.")
@teams.AGENT
def publish(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    agents: tuple[str, ...],
    force: bool,
    reason: str | None,
) -> None:
    """Put adapter and GGUF into the local store as a new version.

    Example: tunewright publish runs/author --set publish.agent=critic
    """
    if reason is not None and not force:
        raise click.UsageError("--reason says why a version is forced: give --force too.")
    _stage("publish", target, overrides, as_json, agents, force=force, reason=reason)


@cli.command()
@_target
@teams.AGENT
def report(target: str, overrides: tuple[str, ...], as_json: bool, agents: tuple[str, ...]) -> None:
    """Write one HTML page about a run.

    Example: tunewright report runs/author
    """
    _stage("report", target, overrides, as_json, agents)


@cli.group("config")
def config_group() -> None:
    """Show the resolved config or the schema; rewrite other tools' configs."""


@config_group.command("show")
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
def config_show(target: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the config with every default filled in; of several agents one after the other.

    Example: tunewright config show preset:demo --set train.lora.r=8
    """
    from tunewright.cli.text import visible_json
    from tunewright.config.load import dump_config
    from tunewright.targets import config_of, team_of

    team = team_of(target, overrides)
    configs = team.configs if team else {"": config_of(target, overrides, note=note)}
    values = {agent: config.model_dump(mode="json") for agent, config in configs.items()}
    if as_json:
        click.echo(visible_json(values if team else values[""]).rstrip())
    else:
        click.echo("---\n".join(map(dump_config, configs.values())).rstrip())


@config_group.command("convert")
@click.argument("target", metavar="FILE")
@SET
@JSON
@click.option("--out", metavar="NEW.yaml", help="Write it there, where no file is yet.")
def config_convert(target: str, overrides: tuple[str, ...], as_json: bool, out: str | None) -> None:
    """Rewrite an Axolotl config, or a TRL script's, in Tunewright's keys; print what differs from defaults.

    Example: tunewright config convert qlora.yaml --out author.yaml
    """
    from tunewright.cli.text import visible_json
    from tunewright.config.convert import as_yaml, essentials, write_new
    from tunewright.config.load import load

    loaded = load(target, overrides)
    text = as_yaml(loaded)
    if out is not None:
        write_new(out, text)
    if as_json:
        facts = {
            "dialect": loaded.dialect,
            "config": essentials(loaded.config),
            "notes": loaded.notes,
        }
        click.echo(visible_json(facts | ({"path": out} if out else {})))
    else:
        click.echo(text.rstrip() if out is None else out)
        for line in loaded.notes if out else ():
            note(line)


@config_group.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the config.

    Example: tunewright config schema > tunewright.schema.json
    """
    from tunewright.config.load import config_schema as schema

    click.echo(schema())


for command in (
    *(run, demo, status, compare, merge, push, serve, chat, store, init, verify, watch),
    *(convert, doctor),
    *COMMANDS,
):
    cli.add_command(command)
