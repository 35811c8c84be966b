"""The command that uploads to the Hub."""

from typing import Any

import click

from tunewright.cli import teams
from tunewright.cli.options import JSON, SET, given

ALL = "all"
"""What `--gguf` means without a type."""


@click.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
@click.option("--adapter", is_flag=True, help="The adapter; also where nothing is named.")
@click.option("--merged", is_flag=True, help="The merged model.")
@click.option(
    "--gguf",
    "types",
    is_flag=False,
    flag_value=ALL,
    multiple=True,
    metavar="[TYPE]",
    help="The GGUF files and the Modelfile; with a type, --gguf=Q8_0, only that one. May be repeated.",
)
@click.option("--dataset", is_flag=True, help="The dataset, as Parquet.")
@click.option("--report", is_flag=True, help="The run's report, beside the card of each model.")
@click.option("--repo-id", metavar="ORG/NAME", help="publish.hub_model_id and its like otherwise.")
@click.option("--private/--public", default=None, help="publish.hub_private otherwise.")
@click.option(
    "--license",
    "licence",
    metavar="ID",
    help="publish.model_license, or of a dataset publish.license, otherwise.",
)
@click.option("--dry-run", is_flag=True, help="List the files and their sizes, upload nothing.")
@click.option("--force", is_flag=True, help="Upload although a gate failed; the card says so.")
@click.option("--reason", metavar="TEXT", help="With --force: why, for the card.")
@teams.AGENT
def push(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    types: tuple[str, ...],
    repo_id: str | None,
    private: bool | None,
    licence: str | None,
    agents: tuple[str, ...],
    **asked: Any,
) -> None:
    """Upload adapter, merged model, GGUF files or dataset to the Hugging Face Hub, each with a card.

    Private by default, one commit a repository, resumable. Of a config with `agents` each has repositories of its
    own: the name of the agent is put behind the name that all share.

    Example: tunewright push runs/author --adapter --gguf=Q8_0 --repo-id me/author --dry-run
    """
    from tunewright.agents import each, require_all
    from tunewright.cli import render
    from tunewright.publish.hub.repositories import PARTS, Part, place_of
    from tunewright.pushing import push as body
    from tunewright.targets import config_of

    named = {"gguf": bool(types), **{part: asked.pop(part) for part in PARTS if part != "gguf"}}
    parts: list[Part] = [part for part in PARTS if named[part]] or ["adapter"]
    places = {} if repo_id is None else {place_of(parts): repo_id}
    model = parts != ["dataset"]
    licences = {"publish__model_license": licence if model else None}
    licences |= {"publish__license": licence if "dataset" in parts else None}
    flags = given(**places, **licences, publish__hub_private=private)
    wanted = [name for text in types for name in text.split(",")]
    asked["types"] = None if ALL in wanted or not wanted else wanted
    if team := teams.taken(target, (*overrides, *flags), agents):
        with render.progress() as listener:
            results = each(
                team,
                lambda config, named: body(config, parts, **asked, listener=named),
                listener=listener,
            )
        render.pushed([one for r in results.values() for one in r.made or ()], as_json=as_json)
        require_all(results)
        return
    with render.progress() as listener:
        config = config_of(target, (*overrides, *flags), note=listener.said)
        made = body(config, parts, **asked, listener=listener)
    render.pushed(made, as_json=as_json)
