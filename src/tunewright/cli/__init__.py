"""The command line: parses, calls, prints. Errors become a code, a place and a fix."""

import difflib
import gc
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from tunewright.cli.commands import cli
from tunewright.cli.text import visible, visible_json
from tunewright.errors import CODES, Problem, TunewrightError, io_fix
from tunewright.machine import cpu_count, cpu_quota, process_rank
from tunewright.privacy import without_secrets

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
}
"""What keeps the libraries below from printing between our lines."""


def entry() -> NoReturn:
    """Run the command of this process and end it.

    Python would look through millions of objects of the libraries for cycles before it ends: two seconds for nothing.
    """
    code = main()
    gc.freeze()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    if not debug:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        warnings.simplefilter("ignore")
        # It speaks as soon as it is imported, of kernels that nobody asked for.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if cpu_quota() is not None:
        # PyTorch would start a thread for each processor of the machine, and they would wait for each other.
        os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))
    signal.signal(signal.SIGTERM, _terminate)
    with _one_voice():
        return _run(args, debug=debug)


@contextmanager
def _one_voice() -> Generator[None]:
    """Keep what a launcher started beside the first process from telling the same again; errors are told."""
    if not process_rank():
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def _run(args: Sequence[str], *, debug: bool) -> int:
    try:
        cli.main(args=list(args), prog_name="tunewright", standalone_mode=False)
    except TunewrightError as error:
        _show(error.problems)
        _show_json(error, args)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return 0
    except OSError as error:
        place = str(error.filename or "the system")
        _show([Problem("E_IO", f"{error.strerror or error}.", place, io_fix(error))])
        return CODES["E_IO"].exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = context.command_path if context else "tunewright"
        _show([Problem("E_USAGE", _misuse(error), command, f"{command} --help")])
        return CODES["E_USAGE"].exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "Interrupted; finished stages are kept. To go on: the same command, without --restart.",
            err=True,
        )
        return 130
    except Exception as error:
        if debug:
            raise
        _show([_internal(error)])
        return CODES["E_INTERNAL"].exit_code
    return 0


def _misuse(error: click.ClickException) -> str:
    """Return what is wrong with a command line; of the options that click finds alike, the nearest one."""
    if not isinstance(error, click.NoSuchOption) or not error.possibilities:
        return error.format_message()
    near = difflib.get_close_matches(error.option_name, error.possibilities, n=1, cutoff=0)
    return f"No such option '{error.option_name}'. Did you mean '{near[0]}'?"


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Unwind as for Ctrl-C, so that what is half written is removed, and end with 143."""
    del frame
    raise SystemExit(128 + signum)


def _show(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(f"ERROR {problem.code}: {visible(problem.message)}", err=True)
        click.echo(f"where: {visible(problem.where)}", err=True)
        click.echo(f"fix: {visible(problem.fix)}", err=True)


def _show_json(error: TunewrightError, args: Sequence[str]) -> None:
    if "--json" in args:
        errors = [vars(problem) for problem in error.problems]
        click.echo(visible_json({**error.details, "errors": errors}))


def _internal(error: Exception) -> Problem:
    folder = _logs_of_run(error) or Path(tempfile.gettempdir())
    place = str(folder / f"tunewright-{os.getpid()}.log")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trace = "".join(traceback.format_exception(error))
        Path(place).write_text(without_secrets(trace), encoding="utf-8")
    except OSError:
        place = "no log, since it could not be written"
    # Of a secret in several lines no half is left: they are hidden before the first line is taken.
    reason = (without_secrets(str(error)).strip().splitlines() or [""])[0]
    return Problem(
        "E_INTERNAL", f"{type(error).__name__}: {reason}", place, CODES["E_INTERNAL"].fix
    )


def _logs_of_run(error: Exception) -> Path | None:
    """Return `logs/` of the run that was under way: its config is in a frame that the error has passed."""
    from tunewright.config.schema import Config

    for frame, _ in traceback.walk_tb(error.__traceback__):
        config = frame.f_locals.get("config")
        if isinstance(config, Config):
            return Path(config.run_dir) / "logs"
    return None
