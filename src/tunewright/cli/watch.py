"""`watch`: a training as it goes, told by its files."""

import click

from tunewright.cli.options import JSON, SET


@click.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
@click.option("--once", is_flag=True, help="Print how it stands now, and end.")
def watch(target: str, overrides: tuple[str, ...], as_json: bool, once: bool) -> None:
    """Show a training as it goes, or as it went: curves, speed, memory, answers.

    Ctrl-C ends the view and not the training. Where the output is no terminal, it is shown once.

    Example: tunewright watch runs/author
    """
    from pathlib import Path

    from tunewright.cli import live, render
    from tunewright.targets import config_of
    from tunewright.train.history import Reader, training_of

    config = config_of(target, overrides)
    folder = training_of(Path(config.run_dir))
    view = live.View(config, folder, Reader(folder))
    if as_json:
        render.facts(view.values(), as_json=True)
    else:
        view.show(once=once)
