"""The command that writes a ready project."""

import click

from tunewright.cli.options import JSON


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option(
    "--base",
    metavar="NAME",
    help="Base model: qwen3-4b, qwen3-8b, llama-3.1-8b, mistral-7b, qwen3-0.6b or tiny; unset: the recipe's own.",
)
@JSON
def init(recipe: str, folder: str | None, base: str | None, as_json: bool) -> None:
    """Write a ready project: config, sample data, README; RECIPE is video-prompts, author-style, agents or instruct.

    DIR is a new folder named after the recipe unless given.

    Example: tunewright init video-prompts prompts --base qwen3-8b
    """
    from tunewright.cli import render
    from tunewright.recipes import write_project

    project = write_project(recipe, folder, base=base)
    if as_json:
        render.facts({"folder": str(project.folder), "files": project.files}, as_json=True)
        return
    for name in project.files:
        render.line(str(project.folder / name))
    for command in project.commands:
        render.line(f"Next: {command}")
