import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.errors import TunewrightError
from tunewright.export.modelfile import GOLDEN_CHATS, go_template, modelfile, turns_of
from tunewright.models.chat import Message, Vocabulary, render

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
WITH_DEFAULT_SYSTEM = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}" + CHATML
)
LLAMA3 = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim"
    " + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}"
    "{{- '[INST] ' + (system + '\\n\\n' if loop.last and system is defined else '')"
    " + message.content + '[/INST]' }}"
    "{%- else %}{{- ' ' + message.content + '</s>' }}{%- endif %}{%- endfor %}"
)


def renderer(template, bos=""):
    vocabulary = Vocabulary(template, lambda text: [], {}, bos, "<|im_end|>")

    def written(messages, question):
        text = render(messages, vocabulary, add_generation_prompt=question)
        return text.removeprefix(bos)

    return written


def go(template, messages):
    """Evaluate what go_template uses of Go's text/template."""
    opening = re.match(
        r'\{\{ \$first := index \.Messages 0 \}\}\{\{ if ne \$first\.Role "system" \}\}'
        r"(.*?)\{\{ end \}\}",
        template,
        re.DOTALL,
    )
    text = ""
    if opening:
        template = template[opening.end() :]
        text = opening[1] if messages[0]["role"] != "system" else ""
    form = re.fullmatch(
        r'\{\{ range \.Messages \}\}\{\{ if eq \.Role "system" \}\}(.*?)'
        r'\{\{ else if eq \.Role "user" \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}\{\{ end \}\}(.*)',
        template,
        re.DOTALL,
    )
    branches = dict(zip(("system", "user", "assistant"), form.groups()[:3], strict=True))
    for message in messages:
        before, after = branches[message["role"]].split("{{ .Content }}")
        text += before + message["content"] + after
    return text + form[4]


@pytest.mark.parametrize(
    ("template", "bos"),
    [(CHATML, ""), (WITH_DEFAULT_SYSTEM, ""), (LLAMA3, "<|begin_of_text|>")],
)
def test_ollamas_template_writes_what_the_training_template_writes(template, bos):
    written = renderer(template, bos)
    turns = turns_of(written)
    assert turns is not None
    for chat in GOLDEN_CHATS:
        assert go(go_template(turns), chat) == written(chat, True)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_content_is_written_alike(contents):
    chat = [Message(role=("user", "assistant")[n % 2], content=c) for n, c in enumerate(contents)]
    written = renderer(CHATML)
    assert turns_of(written).render(chat) == written(chat, True)


def test_chatml_by_hand():
    turns = turns_of(renderer(CHATML))
    text = modelfile(
        "m.gguf",
        turns=turns,
        stop=["<|im_end|>"],
        parameters={"temperature": 0.7, "top_p": 0.8, "num_ctx": 2048},
        system="Be brief.",
    )
    message = "<|im_start|>{role}\n{{{{ .Content }}}}<|im_end|>\n"
    assert text == (
        "FROM ./m.gguf\n"
        'TEMPLATE """{{ range .Messages }}{{ if eq .Role "system" }}'
        + message.format(role="system")
        + '{{ else if eq .Role "user" }}'
        + message.format(role="user")
        + "{{ else }}"
        + message.format(role="assistant")
        + '{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'SYSTEM """Be brief."""\n'
        'PARAMETER stop "<|im_end|>"\n'
        "PARAMETER temperature 0.7\nPARAMETER top_p 0.8\nPARAMETER num_ctx 2048\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        MISTRAL,
        "{{ raise_exception('no') }}",
        "nothing",
        CHATML.replace("<|im_end|>", "{{ '{{' }}"),
        CHATML.replace("message.content", "message.content | upper"),
        CHATML + "{{ messages | length }}",
    ],
)
def test_other_templates_are_left_to_the_gguf(template):
    assert turns_of(renderer(template)) is None
    text = modelfile("m.gguf", turns=None, stop=["</s>"], parameters={}, system=None)
    assert text == 'FROM ./m.gguf\nPARAMETER stop "</s>"\n'


@pytest.mark.parametrize("system", ['a """ b', 'say "yes"'])
def test_a_system_message_that_cannot_be_quoted(system):
    with pytest.raises(TunewrightError, match="E_CONFIG_VALUE"):
        modelfile("m.gguf", turns=None, stop=[], parameters={}, system=system)
