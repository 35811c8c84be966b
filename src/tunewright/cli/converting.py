"""`convert`: pickled weights as safetensors."""

from pathlib import Path

import click

from tunewright.cli.options import JSON


@click.command()
@click.argument("source", metavar="OLD", type=click.Path(path_type=Path))
@click.argument("out", metavar="NEW", type=click.Path(path_type=Path))
@JSON
def convert(source: Path, out: Path, as_json: bool) -> None:
    """Rewrite pickled weights (.bin, .pt, .pth) as safetensors, in a process with limits.

    OLD is a model's or an adapter's folder, or one file; NEW a folder that does not exist yet. Programs that lie
    beside the weights stay behind.

    Example: tunewright convert old-model old-model-safe
    """
    from tunewright.cli import render
    from tunewright.models.unpickling import convert as converted

    with render.progress() as listener:
        found = converted(source, out, listener)
    render.facts(found, as_json=as_json)
