"""The Modelfile's template, rendered by Go as Ollama does, against the training template in Jinja."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.errors import TunewrightError
from tunewright.export.modelfile import (
    GOLDEN_CHATS,
    PECULIAR_CHATS,
    Turns,
    UntranslatableError,
    go_template,
    modelfile,
    peculiarities,
    turns_of,
)
from tunewright.models.chat import Message, Vocabulary, render

HERE = Path(__file__).parent
TEMPLATES = HERE.parents[2] / "src" / "tunewright" / "models" / "templates"
CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
WITH_DEFAULT_SYSTEM = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\nYou are \"helpful\".<|im_end|>\\n' }}{%- endif %}" + CHATML
)
LLAMA3 = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim"
    " + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
SYSTEM_FIRST = (  # Llama 2, Mistral v0.1
    "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}"
    "{{- '[INST] ' + ('<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if loop.first and system is defined else '')"
    " + message.content + ' [/INST]' }}"
    "{%- else %}{{- ' ' + message.content + '</s>' }}{%- endif %}{%- endfor %}"
)
SYSTEM_LAST = SYSTEM_FIRST.replace("loop.first", "loop.last")  # Mistral v0.3, Nemo
NO_SYSTEM = (  # Gemma
    "{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{%- endif %}"
    "{%- for message in messages %}{{- '<start>' + message.role + '\\n' + message.content + '<end>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<start>model\\n' }}{%- endif %}"
)
BRACES = CHATML.replace("'<|im_end|>'", """'{"end": {{ }}""\\"'""")
BUNDLED = {
    name: (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    for name in ("alpaca", "style_prompt", "plain")
}
SAYABLE = {
    "chatml": CHATML,
    "default system": WITH_DEFAULT_SYSTEM,
    "llama 3": LLAMA3,
    "system in the first question": SYSTEM_FIRST,
    "system in the last question": SYSTEM_LAST,
    "no system": NO_SYSTEM,
    "braces and quotes": BRACES,
    **BUNDLED,
}


def renderer(template, bos="<s>"):
    vocabulary = Vocabulary(template, lambda text: [], {}, bos, "</s>")

    def written(messages, question):
        text = render(messages, vocabulary, add_generation_prompt=question)
        return text.removeprefix(bos)

    return written


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """Return a function that renders (template, chat) pairs by Go's text/template."""
    if shutil.which("go") is None:
        assert "CI" not in os.environ, "CI installs Go: a skip would hide that it did not"
        pytest.skip("Go is not installed: `apt-get install golang-go`")
    program = tmp_path_factory.mktemp("go") / "render"
    source = HERE.parents[1] / "ollama" / "main.go"
    subprocess.run(["go", "build", "-o", program, source], check=True, capture_output=True)

    def rendered(pairs):
        asked = json.dumps([{"template": t, "messages": list(m)} for t, m in pairs])
        done = subprocess.run([program], input=asked, capture_output=True, check=True, text=True)
        return json.loads(done.stdout)

    return rendered


def in_file(turns):
    """Return the template as Ollama reads it from the Modelfile: what is between the first two triple quotes."""
    text = modelfile("m.gguf", turns=turns, stop=[], parameters={}, system=None)
    return text.split('TEMPLATE """')[1].split('"""')[0]


@pytest.mark.parametrize("name", SAYABLE)
def test_ollama_writes_what_the_training_template_writes(name, go):
    written = renderer(SAYABLE[name])
    turns = turns_of(written)
    chats = [c for c in GOLDEN_CHATS if turns.takes_system or c[0]["role"] != "system"]
    assert len(chats) >= 4
    texts = go([(in_file(turns), chat) for chat in chats])
    assert texts == [written(chat, True) for chat in chats]
    assert texts == [turns.render(chat) for chat in chats]


def test_one_space_more_is_another_text(go):
    written = renderer(CHATML)
    changed = go_template(turns_of(renderer(CHATML.replace("assistant\\n", "assistant\\n "))))
    texts = go([(changed, chat) for chat in GOLDEN_CHATS])
    assert all(text != written(chat, True) for text, chat in zip(texts, GOLDEN_CHATS, strict=True))


def test_any_format_is_said_in_gos_language_and_in_a_modelfile(go):
    """500 formats of random texts, with all that means something to Go or to a Modelfile."""
    chance = random.Random(6)
    signs = [
        "{",
        "{{",
        "}}",
        "-",
        " ",
        "\n",
        '"',
        '"""',
        "`",
        "\\",
        "%",
        "/*",
        "a",
        "é",
        "<|x|>",
        "$",
    ]

    def text():
        return "".join(chance.choices(signs, k=chance.randrange(6)))

    def leads():
        parts = {
            (a, b): tuple(text() for _ in range(1 + a))
            for a in (False, True)
            for b in (False, True)
        }
        return parts if chance.random() < 0.5 else {key: parts[key[0], True] for key in parts}

    formats = [Turns(leads(), leads(), text(), text()) for _ in range(500)]
    pairs = [(turns, chance.choice(GOLDEN_CHATS)) for turns in formats]
    found = go([(in_file(turns), chat) for turns, chat in pairs])
    assert found == [turns.render(chat) for turns, chat in pairs]


@given(st.lists(st.text(), min_size=1, max_size=5), st.none() | st.text())
def test_any_content_is_written_alike(contents, system):
    chat = [Message(role=("user", "assistant")[n % 2], content=c) for n, c in enumerate(contents)]
    chat = chat[: len(chat) - 1 + len(chat) % 2]
    if system is not None:
        chat.insert(0, Message(role="system", content=system))
    for template in (CHATML, SYSTEM_LAST, BUNDLED["style_prompt"]):
        written = renderer(template)
        assert turns_of(written).render(chat) == written(chat, True)


def test_chatml_by_hand():
    text = modelfile(
        "m.gguf",
        turns=turns_of(renderer(CHATML)),
        stop=["<|im_end|>", 'a"b'],
        parameters={"temperature": 0.7, "top_p": 0.8, "num_ctx": 2048},
        system="Be brief.",
        remarks=["Made by hand."],
    )
    assert text == (
        "# Made by hand.\n"
        "FROM ./m.gguf\n"
        'TEMPLATE """{{ $system := eq (index $.Messages 0).Role "system" }}{{ $first := true }}'
        "{{ range $index, $_ := $.Messages }}{{ $last := eq (len (slice $.Messages $index)) 1 }}"
        '{{ if eq .Role "user" }}{{ if $first }}{{ if $system }}<|im_start|>system\n'
        "{{ (index $.Messages 0).Content }}<|im_end|>\n<|im_start|>user\n"
        "{{ else }}<|im_start|>user\n{{ end }}{{ else }}<|im_end|>\n<|im_start|>user\n{{ end }}"
        "{{ .Content }}<|im_end|>\n<|im_start|>assistant\n{{ $first = false }}"
        '{{ else if eq .Role "assistant" }}{{ .Content }}{{ end }}{{ end }}"""\n'
        'SYSTEM """Be brief."""\n'
        'PARAMETER stop "<|im_end|>"\n'
        'PARAMETER stop """a"b"""\n'
        "PARAMETER temperature 0.7\nPARAMETER top_p 0.8\nPARAMETER num_ctx 2048\n"
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("nothing", "left out"),
        (CHATML.replace("message.content", "message.content | upper"), "where its likeness"),
        (CHATML.replace("message.content", "message.content | reverse"), "left out"),
        (CHATML + "{{ messages | length }}", "depends on more than its place"),
        (CHATML.replace("'<|im_end|>'", "messages[0].content"), "written twice"),
    ],
)
def test_what_cannot_be_said_is_refused_with_the_reason(template, reason):
    with pytest.raises(UntranslatableError, match=reason):
        turns_of(renderer(template))


def test_a_template_that_fails_is_no_format():
    with pytest.raises(TunewrightError, match="E_TEMPLATE"):
        turns_of(renderer("{{ raise_exception('no') }}"))


def test_what_only_some_chats_show_is_told():
    trims = "a question with spaces or line breaks at its ends"
    found = {name: peculiarities(turns_of(renderer(t)), renderer(t)) for name, t in SAYABLE.items()}
    assert found["chatml"] == []
    assert trims in found["llama 3"]
    assert found["alpaca"] == ["a question with '### Input:'"]
    assert set(found["llama 3"]) < set(PECULIAR_CHATS)


@pytest.mark.parametrize("system", ['a """ b', 'say "yes"'])
def test_a_system_message_that_cannot_be_quoted(system):
    turns = turns_of(renderer(CHATML))
    with pytest.raises(TunewrightError, match="E_CONFIG_VALUE"):
        modelfile("m.gguf", turns=turns, stop=[], parameters={}, system=system)


def test_a_system_message_for_a_template_that_takes_none():
    turns = turns_of(renderer(NO_SYSTEM))
    with pytest.raises(TunewrightError, match="takes no system message"):
        modelfile("m.gguf", turns=turns, stop=[], parameters={}, system="Be brief.")
