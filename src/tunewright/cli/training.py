"""The commands that plan and train; `train` also works from flags alone, for job launchers."""

from pathlib import Path
from typing import Any

import click

from tunewright.cli import teams
from tunewright.cli.options import JSON, SET

NO_PATH = "must"
"""What `--resume` without a path stands for."""


class JobCommand(click.Command):
    """A command whose `--train-files` takes several values, and `--resume` one or none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments after writing both as click knows them."""
        return super().parse_args(ctx, spelled_out(args))


def spelled_out(args: list[str]) -> list[str]:
    """Return arguments with one value a `--train-files`, and `--resume=must` where no checkpoint follows.

    A shell that expands a pattern gives many values; a config is told from them by its suffix.
    """
    found: list[str] = []
    many = False
    for number, word in enumerate(args):
        name = word.replace("_", "-")
        if name == "--resume":
            following = args[number + 1] if number + 1 < len(args) else "-"
            found.append("--resume" if _is_checkpoint(following) else f"--resume={NO_PATH}")
        elif many and not word.startswith("-") and not _is_config(word):
            if found[-1] != "--train-files":
                found.append("--train-files")
            found.append(word)
        else:
            many = name == "--train-files"
            found.append("--train-files" if many else word)
    return found


def _is_config(word: str) -> bool:
    return word.startswith("preset:") or word.endswith((".yaml", ".yml"))


def _is_checkpoint(word: str) -> bool:
    """Tell a checkpoint from a config or a run that follows `--resume`."""
    return not (word.startswith("-") or _is_config(word) or (Path(word) / "run.yaml").is_file())


@click.command()
@click.argument("target", metavar="CONFIG|RUN")
@SET
@JSON
@click.option(
    "--load-model", is_flag=True, help="Load the weights and run one step, to measure the rest."
)
@teams.AGENT
def plan(
    target: str,
    overrides: tuple[str, ...],
    as_json: bool,
    load_model: bool,
    agents: tuple[str, ...],
) -> None:
    """Tell what can be known before training: steps, memory, disk, and why.

    The dataset has to be there; `train --dry-run` makes it on the way.

    Example: tunewright plan author.yaml --json
    """
    from tunewright import pipeline
    from tunewright.cli import render
    from tunewright.targets import config_of

    if team := teams.taken(target, overrides, agents):
        teams.stage(team, "plan", as_json=as_json, **_given(load_model=load_model))
        return
    with render.progress() as listener:
        config = config_of(target, overrides, note=listener.said)
        made = pipeline.run_stage(
            config, "plan", listener=listener, **_given(load_model=load_model)
        )
    render.artifact(made, as_json=as_json)


@click.command(cls=JobCommand)
@click.argument("target", metavar="[CONFIG|RUN]", required=False)
@SET
@JSON
@click.option(
    "--agent",
    metavar="NAME",
    help="publish.agent, and names the run of a job; of a config with `agents`: only this one.",
)
@click.option("--adapter-name", metavar="NAME", help="publish.adapter; names the run of a job.")
@click.option("--adapter-version", metavar="NAME", help="publish.version.")
@click.option("--model-name-or-path", metavar="BASE", help="model.model_name_or_path.")
@click.option(
    "--train-files",
    multiple=True,
    metavar="PATTERN...",
    help="Files to train on, in place of prepare.source: paths and patterns such as 'data/*.jsonl'.",
)
@click.option("--dataset-name", metavar="ORG/NAME", help="A dataset of the Hub to train on.")
@click.option(
    "--prompt-template",
    metavar="TEXT|FILE|NAME",
    help="The question with columns in braces ('Write about {topic}.') or a text file that holds it: "
    "prepare.prompt_template; a name such as alpaca, or a Jinja file: model.chat_template.",
)
@click.option("--max-train-samples", type=int, metavar="N", help="train.max_train_samples.")
@click.option("--output-dir", metavar="DIR", help="output_dir.")
@click.option("--epochs", type=float, metavar="N", help="train.num_train_epochs.")
@click.option(
    "--train-batch-size", type=int, metavar="N", help="train.per_device_train_batch_size."
)
@click.option(
    "--gradient-accumulation", type=int, metavar="N", help="train.gradient_accumulation_steps."
)
@click.option("--adapter-r", type=int, metavar="N", help="train.lora.r.")
@click.option("--adapter-alpha", type=int, metavar="N", help="train.lora.lora_alpha.")
@click.option("--dry-run", is_flag=True, help="Prepare, check and plan; train nothing.")
@click.option("--load-model", is_flag=True, help="With --dry-run: load the weights, run one step.")
@click.option("--publish", is_flag=True, help="Go on: compare, merge, export, publish, report.")
@click.option(
    "--resume",
    metavar="[CHECKPOINT]",
    help="Go on from the newest whole checkpoint, or from this one only; without the flag a training that "
    "was interrupted goes on, and one that was not begins.",
)
@click.option("--restart", is_flag=True, help="Begin again, whatever is there.")
@click.option(
    "--allow-inexact",
    is_flag=True,
    help="Go on although the machine differs, so that the result does not repeat to the bit.",
)
def train(
    target: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    load_model: bool,
    publish: bool,
    resume: str | None,
    restart: bool,
    allow_inexact: bool,
    **flags: Any,
) -> None:
    """Train a LoRA adapter on the dataset and keep the best evaluation.

    A dataset that is not there is made and checked first. Without CONFIG the flags are the job: they name the data.

    Example: tunewright train author.yaml

    Example: tunewright train --agent critic --train-files 'critic/*.jsonl' --epochs 2 --publish
    """
    from tunewright import jobs, pipeline
    from tunewright.cli import render
    from tunewright.targets import config_of

    _refuse_together(dry_run=dry_run, publish=publish, load_model=load_model)
    if resume and restart:
        raise click.UsageError("--resume goes on and --restart begins again: give one of them.")
    names_data = bool(flags["train_files"] or flags["dataset_name"])
    if (
        target is None
        and not names_data
        and not any(o.startswith("prepare.source") for o in overrides)
    ):
        raise click.UsageError("Name a config, or the data: --train-files or --dataset-name.")
    options = (
        _given(load_model=load_model)
        if dry_run
        else _given(resume=resume, restart=restart, allow_inexact=allow_inexact)
    )
    if target is not None and _of_team(
        target, overrides, flags, as_json=as_json, dry_run=dry_run, publish=publish, **options
    ):
        return
    refusal = None
    with render.progress() as listener:
        if target is None:
            config = jobs.job_config(flags, overrides)
        else:
            given = (*jobs.job_overrides(flags), *overrides)
            config = config_of(target, given, note=listener.said)
        remake = target is None or names_data
        try:
            made, after = jobs.train_job(
                config,
                remake=remake,
                dry_run=dry_run,
                publish=publish,
                listener=listener,
                **options,
            )
        except pipeline.PublishingRefusedError as error:
            refusal, made, after = error, None, error.outcomes
    if made is None or after:
        render.outcomes(config, after, as_json=as_json)
    else:
        render.artifact(made, as_json=as_json)
    if refusal is not None:
        raise refusal


def _of_team(
    target: str,
    overrides: tuple[str, ...],
    flags: dict[str, Any],
    *,
    as_json: bool,
    dry_run: bool,
    publish: bool,
    **options: Any,
) -> bool:
    """Train the agents of a config that has several; return whether it has."""
    from tunewright import jobs
    from tunewright.targets import team_of

    if team_of(target) is None:
        return False
    given = jobs.job_overrides({name: value for name, value in flags.items() if name != "agent"})
    agents = (flags["agent"],) if flags["agent"] else ()
    team = teams.taken(target, (*given, *overrides), agents)
    if team is not None:
        if dry_run:
            teams.stage(team, "plan", as_json=as_json, **options)
        elif publish:
            teams.train_and_run(team, as_json=as_json, **options)
        else:
            teams.stage(team, "train", as_json=as_json, **options)
    return True


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value}


def _refuse_together(*, dry_run: bool, publish: bool, load_model: bool) -> None:
    """Refuse flags that say opposite things.

    Raises:
        click.UsageError: Two of them do.
    """
    if dry_run and publish:
        raise click.UsageError("--dry-run trains nothing, so there is nothing to --publish.")
    if load_model and not dry_run:
        raise click.UsageError("--load-model belongs to --dry-run, or to `tunewright plan`.")


COMMANDS = (plan, train)
