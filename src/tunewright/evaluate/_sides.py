"""Opens both sides of a comparison, whatever they are."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tunewright.config.schema import Config
from tunewright.evaluate._endpoint import endpoint
from tunewright.evaluate._local import load_alone, load_pair, put_on
from tunewright.evaluate.harness import Speaker
from tunewright.evaluate.sides import Checkpoint, Endpoints, GgufFile, ModelFolder, Other
from tunewright.models import _llama
from tunewright.models._folders import resolve_model
from tunewright.models._place import loading
from tunewright.models.sampling import Sampling

CONTEXT_TOKENS = 4096
"""Context of llama.cpp at least."""
PLAIN = {
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "chat_template_kwargs": {"enable_thinking": False},
}
"""Nothing but `top_p` changes what is sampled, and no thought is asked for, as of models that run here."""


@contextmanager
def opened(
    config: Config, adapter: Path | None, other: Other | None, *, sampling: Sampling
) -> Generator[tuple[Speaker, Speaker]]:
    """Give base and tuned; servers and models are let go at the end.

    Args:
        config: Of the run.
        adapter: Folder of the run's adapter; only endpoints do without.
        other: What is compared in place of the adapter.
        sampling: How both answer.

    Raises:
        TunewrightError: E_MODEL, E_ARTIFACT_INVALID, E_ENDPOINT: one of them cannot be used.
    """
    with ExitStack() as stack:
        if isinstance(other, Endpoints):
            yield _both(stack, other, config, sampling)
            return
        base = resolve_model(config.model.model_name_or_path, config.model.revision)
        # What was merged is in 16 bits, also where training was in 4: so is the base that it is compared with.
        alone = config.train.model_copy(update={"load_in_4bit": False})
        merged = isinstance(other, ModelFolder | GgufFile)
        how = loading(base, alone if merged else config.train)
        if other is None or isinstance(other, Checkpoint):
            if adapter is None:
                raise ValueError("an adapter is needed")
            names = ("base", other.name if other else "adapter")
            off, on = load_pair(base, adapter, sampling=sampling, names=names, **how)
            if other:
                put_on(on, other.path)
            yield off, on
            return
        reads = adapter or base
        plain = load_alone(base, reads, sampling=sampling, name="base", **how)
        if isinstance(other, GgufFile):
            longest = config.train.max_length + sampling.max_new_tokens
            yield plain, _of_gguf(stack, other, sampling, max(CONTEXT_TOKENS, longest))
            return
        how = loading(other.path, alone)
        yield plain, load_alone(other.path, other.path, sampling=sampling, name=other.name, **how)


def _of_gguf(stack: ExitStack, other: GgufFile, sampling: Sampling, context: int) -> Speaker:
    url = stack.enter_context(_llama.endpoint(other.path, ctx=context))
    served = endpoint(
        f"{url}/v1",
        other.path.stem,
        name=other.name,
        where=str(other.path),
        sampling=sampling,
        extra=PLAIN,
    )
    # Where it happens to be served is of no interest.
    return replace(stack.enter_context(served), name=other.name)


def _both(
    stack: ExitStack, other: Endpoints, config: Config, sampling: Sampling
) -> tuple[Speaker, Speaker]:
    base, tuned = (
        stack.enter_context(
            endpoint(
                url,
                model,
                name=name,
                where=where,
                sampling=sampling,
                extra=config.compare.extra_body,
            )
        )
        for url, model, name, where in (
            (other.baseline_url, other.baseline_model, "baseline", "--baseline-url"),
            (other.tuned_url, other.tuned_model, "tuned", "--tuned-url"),
        )
    )
    return base, tuned
