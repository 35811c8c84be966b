"""What a model reads before it answers, and when its answer ends."""

import pytest

from tunewright.models._folders import TINY, resolve_model
from tunewright.models._generate import generate
from tunewright.models._load import load_model
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import encode, prompt_ids, render
from tunewright.models.sampling import EMPTY_THOUGHT, Sampling, TimeUpError

CHAT = [{"role": "user", "content": "Describe a lift."}]
TURN = "{{ '<|im_start|>' + m.role + '\n' + %s + '<|im_end|>\n' }}"
THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    + TURN % "'<think>\n\n</think>\n\n' + m.content"
    + "{% else %}"
    + TURN % "m.content"
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve_model(TINY))


def test_a_prompt_is_what_training_has_before_an_answer(tokenizer):
    vocabulary = vocabulary_of(tokenizer)
    assert prompt_ids(CHAT, vocabulary) == list(
        encode(CHAT, vocabulary, add_generation_prompt=True).input_ids
    )


def test_an_empty_thought_of_the_template_is_read_and_not_left_to_the_model(tokenizer):
    own = tokenizer.chat_template
    tokenizer.chat_template = THINKING
    try:
        vocabulary = vocabulary_of(tokenizer)
        trained = encode([*CHAT, {"role": "assistant", "content": "Slow."}], vocabulary)
        ids = prompt_ids(CHAT, vocabulary)
        asked = render(CHAT, vocabulary, add_generation_prompt=True)
    finally:
        tokenizer.chat_template = own
    assert tokenizer.decode(ids) == asked + EMPTY_THOUGHT
    assert trained.input_ids[: len(ids)] == ids


def test_raw_text_is_read_as_it_is(tokenizer):
    vocabulary = vocabulary_of(tokenizer)
    text = [{"role": "assistant", "content": "Once upon"}]
    assert tokenizer.decode(prompt_ids(text, vocabulary)).endswith("Once upon")


def test_an_answer_tells_its_tokens_and_whether_it_ended(tokenizer):
    model = load_model(resolve_model(TINY))
    vocabulary = vocabulary_of(tokenizer)

    def answers(limit, seed=3, max_seconds=60.0):
        return generate(
            model,
            tokenizer,
            vocabulary,
            [CHAT, [*CHAT, {"role": "assistant", "content": "Slow."}, *CHAT]],
            sampling=Sampling(limit, 0.8, 0.9),
            seed=seed,
            max_seconds=max_seconds,
        )

    short = answers(4)
    assert [a.tokens for a in short if not a.ended] == [4] * sum(not a.ended for a in short)
    long = [a for seed in range(4) for a in answers(300, seed)]
    ended = [a for a in long if a.ended]
    assert ended
    assert all(a.tokens <= 300 for a in long)
    # The end is a token that is not part of the text.
    assert all(a.tokens == len(vocabulary.tokenize(a.text)) + 1 for a in ended[:1])
    assert answers(40) == answers(40)
    with pytest.raises(TimeUpError):
        answers(300, max_seconds=1e-6)


def test_at_temperature_0_the_most_likely_token_is_taken(tokenizer):
    """Against the argmax of one pass over question and answer together."""
    import torch

    model = load_model(resolve_model(TINY))
    vocabulary = vocabulary_of(tokenizer)
    ids = prompt_ids(CHAT, vocabulary)
    question = len(ids)
    with torch.inference_mode():
        for _ in range(10):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    (answer,) = generate(
        model,
        tokenizer,
        vocabulary,
        [CHAT],
        sampling=Sampling(10, 0, 1.0),
        seed=1,
        max_seconds=60,
    )
    assert answer.text == tokenizer.decode(ids[question:], skip_special_tokens=True)
