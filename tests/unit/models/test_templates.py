"""Templates by name and by file, and what loading a tokenizer makes of them."""

import json
import re
import shutil

import pytest

from tunewright.errors import TunewrightError
from tunewright.models import templates
from tunewright.models._folders import TINY, resolve_model
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, Vocabulary, render
from tunewright.models.templates import NAMES, frozen, template_text


def written(template, *contents, system=None, asked=False):
    chat = [] if system is None else [Message(role="system", content=system)]
    chat += [
        Message(role=("user", "assistant")[n % 2], content=content)
        for n, content in enumerate(contents)
    ]
    vocabulary = Vocabulary(template, lambda text: [], {}, "<s>", "</s>")
    return render(chat, vocabulary, add_generation_prompt=asked)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(resolve_model(TINY), folder)
    return folder


@pytest.fixture
def bare(model):
    (model / "chat_template.jinja").unlink()
    return model


def test_alpaca():
    template = template_text("alpaca")
    opening = (
        "<s>Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSay hi.\n\n### Response:\n"
    )
    assert written(template, "Say hi.", asked=True) == opening
    assert written(template, "Say hi.", "Hi.") == opening + "Hi.</s>\n\n"
    more = opening + "Hi.</s>\n\n### Instruction:\nAgain.\n\n### Response:\nHi, hi.</s>\n\n"
    assert written(template, "Say hi.", "Hi.", "Again.", "Hi, hi.") == more


def test_alpaca_with_an_input():
    assert written(template_text("alpaca"), "Add.\n\n### Input:\n1 2", "3") == (
        "<s>Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3</s>\n\n"
    )


def test_a_system_message_takes_the_place_of_alpacas_opening():
    assert written(template_text("alpaca"), "Hi", "Yes.", system="Be brief.") == (
        "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYes.</s>\n\n"
    )


def test_style_prompt_has_the_headings_in_order():
    text = written(
        template_text("style-prompt"),
        "A lighthouse.\n\n### Style:\ncinematic",
        "Waves at dawn.\n\n### Negative Prompt:\nblurry\n\n### Tags:\nsea, dawn",
    )
    assert text == (
        "<s>### Instruction:\nA lighthouse.\n\n### Style:\ncinematic\n\n"
        "### Response:\nWaves at dawn.\n\n### Negative Prompt:\nblurry\n\n"
        "### Tags:\nsea, dawn</s>\n\n"
    )
    assert re.findall(r"^(?:<s>)?### (.*):$", text, re.MULTILINE) == [
        "Instruction",
        "Style",
        "Response",
        "Negative Prompt",
        "Tags",
    ]


def test_plain_has_no_markers():
    template = template_text("plain")
    assert written(template, "Hi", "Yes.", "So?", system="S") == "<s>S\n\nHi\n\nYes.</s>\n\nSo?\n\n"
    assert written(template, "Hi", asked=True) == "<s>Hi\n\n"


@pytest.mark.parametrize("name", ["no-such", "no/such.jinja", ""])
def test_an_unknown_template_lists_the_names(name):
    with pytest.raises(TunewrightError) as caught:
        template_text(name)
    (problem,) = caught.value.problems
    assert problem.code == "E_NOT_FOUND"
    assert all(f"`{known}`" in problem.fix for known in NAMES)


def test_a_file_of_the_users(tmp_path):
    file = tmp_path / "mine.jinja"
    text = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}"
    file.write_text("\ufeff" + text, encoding="utf-8")
    assert template_text(str(file)) == text


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (b"{% for m in messages %}\n{{ m.content }}\n{% endfro %}", "is not Jinja", ":3"),
        (b"{{ messages[0].content }", "is not Jinja", ":1"),
        (b"\n{{ messages | no_such_filter }}", "is not Jinja", ":2"),
        (b"\xef\xbb\xbf{{\r\n messages[0].content\r\n\xff }}", "not UTF-8", ":3"),
        (b"\xff\xfe", "not UTF-8", ":1"),
        (b" " * (templates.MOST_CHARACTERS + 1), "larger than a chat template", ""),
        (b"{{ " + b"(" * 5000 + b"1" + b")" * 5000 + b" }}", "nested too deeply", ""),
    ],
)
def test_files_that_are_no_templates(tmp_path, content, message, line):
    file = tmp_path / "mine.jinja"
    file.write_bytes(content)
    with pytest.raises(TunewrightError) as caught:
        template_text(str(file))
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E_CONFIG_VALUE", f"{file}{line}")
    assert caught.value.exit_code == 2
    assert message in problem.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "leaves out the text of the 'user' message"),
        (b"{% for m in messages %}{{ m.content | upper }}{% endfor %}", "leaves out"),
        (b"{% for m in messages %}{{ m.content | replace('e', '') }}{% endfor %}", "leaves"),
        (b"{% for m in messages %}{{ m.content[:9] }}{% endfor %}", "leaves out"),
        (
            b"{% for m in messages %}{{ m.content }}!{{ m.content | length }}{% endfor %}",
            "rewri",
        ),
        (b"{{ raise_exception('never') }}", "fails: never"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    file = tmp_path / "mine.jinja"
    file.write_bytes(content)
    with pytest.raises(TunewrightError) as caught:
        template_text(str(file))
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E_TEMPLATE", str(file))
    assert caught.value.exit_code == 9
    assert message in problem.message


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{% set d = strftime_now("%d %b %Y") %}', "{% set d = '26 Jul 2024' %}"),
        ("{{ strftime_now( '%Y-%m-%d' ) }}", "{{ '2024-07-26' }}"),
        ("{% if strftime_now is defined %}", "{% if strftime_now is defined %}"),
    ],
)
def test_dates_are_frozen(template, expected):
    assert frozen(template) == expected
    assert frozen(frozen(template)) == expected


def test_a_tokenizer_keeps_its_own_template(model):
    assert load_tokenizer(model).chat_template == (model / "chat_template.jinja").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_template_by_name_takes_the_place_of_its_own_and_is_saved(model, tmp_path, name):
    tokenizer = load_tokenizer(model, name)
    assert tokenizer.chat_template == template_text(name)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    assert saved.chat_template == template_text(name)
    assert vocabulary_of(saved).ends == {saved.eos_token_id}


def test_a_model_without_a_template_says_what_to_set(bare):
    with pytest.raises(TunewrightError) as caught:
        load_tokenizer(bare)
    (problem,) = caught.value.problems
    assert problem.code == "E_MODEL"
    assert "--set model.chat_template=alpaca" in problem.fix
    assert "`style-prompt`" in problem.fix
    assert load_tokenizer(bare, "plain").chat_template == template_text("plain")


def test_named_templates_take_the_default(bare):
    file = bare / "tokenizer_config.json"
    config = json.loads(file.read_text())
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    file.write_text(json.dumps(config | {"chat_template": named}))
    assert load_tokenizer(bare).chat_template == "d"
    file.write_text(json.dumps(config | {"chat_template": named[:1]}))
    with pytest.raises(TunewrightError, match="tool_use"):
        load_tokenizer(bare)


def test_the_date_of_a_models_template_is_frozen(model):
    text = "{{ strftime_now('%d %b %Y') }}" + (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(text)
    assert load_tokenizer(model).chat_template.startswith("{{ '26 Jul 2024' }}")


def test_a_tokenizer_without_an_end(model):
    file = model / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["eos_token"]
    file.write_text(json.dumps(config))
    with pytest.raises(TunewrightError, match="no end-of-sequence"):
        load_tokenizer(model)


def test_a_tokenizer_without_padding_pads_with_its_end(model):
    file = model / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["pad_token"]
    file.write_text(json.dumps(config))
    tokenizer = load_tokenizer(model)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
