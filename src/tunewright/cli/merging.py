"""The command that merges."""

import click

from tunewright.cli import teams
from tunewright.cli.options import JSON, SET, given, note


@click.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
@click.option(
    "--auto", is_flag=True, help="Merge the checkpoint with the lowest held-out loss, and say why."
)
@click.option(
    "--checkpoint",
    type=click.IntRange(0),
    metavar="N",
    help="Merge the checkpoint of step N in place of the run's adapter.",
)
@teams.AGENT
def merge(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    auto: bool,
    checkpoint: int | None,
    agents: tuple[str, ...],
) -> None:
    """Merge the adapter, or a checkpoint, into the 16-bit base, proven equal.

    Example: tunewright merge runs/author --auto
    """
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.targets import config_of

    if auto and checkpoint is not None:
        raise click.UsageError("--auto chooses the checkpoint, --checkpoint names it: give one.")
    flags = given(merge__checkpoint="auto" if auto else checkpoint)
    if flags:
        note(f"Kept in the run, as --set would be: {', '.join(flags)}")
    if team := teams.taken(target, (*overrides, *flags), agents):
        teams.stage(team, "merge", as_json=as_json)
        return
    with render.progress() as listener:
        config = config_of(target, [*overrides, *flags], note=listener.said)
        artifact = pipeline.run_stage(config, "merge", listener=listener)
    render.artifact(artifact, as_json=as_json)
