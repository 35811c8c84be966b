"""Token ids and masks of each template family, against a construction from the parts of its format.

The construction knows neither Jinja nor chat.py: literal texts are put together turn by turn, tokenised stretch
by stretch, and a token is trained on if one of its bytes is. Qwen's and Llama's own templates are read from TRL.
"""

import random
import unicodedata
from dataclasses import dataclass
from importlib import resources

import pytest
from tokenizers import AddedToken, Tokenizer, processors

from tunewright.models._folders import TINY, resolve_model
from tunewright.models._tokenizer import load_tokenizer, vocabulary_of
from tunewright.models.chat import Message, encode, encode_many
from tunewright.models.templates import template_text

CONVERSATIONS = 500

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As v0.3's: strict alternation, a system message goes into the last question.
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}"
    "{%- for message in turns %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Roles must alternate.') }}{%- endif %}"
    "{%- if message.role == 'user' %}"
    "{%- if system is defined and loop.index0 >= turns | length - 2 + turns | length % 2 %}"
    "{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"
)
# As v0.1's: a system message goes into the first question; the marks are plain text.
MISTRAL_OLD = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content + '\\n\\n' %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set system = '' %}{%- set turns = messages %}"
    "{%- endif %}{{- bos_token }}{%- for message in turns %}{%- if message.role == 'user' %}"
    "{{- ' [INST] ' + (system if loop.first else '') + message.content + ' [/INST]' }}"
    "{%- else %}{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"
)


@dataclass(frozen=True)
class Special:
    text: str
    learned: bool = False


@dataclass(frozen=True)
class Text:
    text: str
    learned: bool = False


def chatml_turn(role, content):
    learned = role == "assistant"
    return [
        Special("<|im_start|>"),
        Text(f"{role}\n"),
        Text(content, learned),
        Special("<|im_end|>", learned),
        Text("\n"),
    ]


def chatml(messages):
    return [part for m in messages for part in chatml_turn(m["role"], m["content"])]


def qwen2_5(messages):
    opening = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    unasked = [] if messages[0]["role"] == "system" else chatml_turn("system", opening)
    return unasked + chatml(messages)


def qwen3(messages):
    parts = []
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role != "assistant":
            parts += chatml_turn(role, content)
            continue
        thought = ""
        if "</think>" in content:
            before, content = content.split("</think>")
            thought = before.rstrip("\n").removeprefix("<think>").strip("\n")
            content = content.lstrip("\n")
        if index == len(messages) - 1:
            content = f"<think>\n{thought}\n</think>\n\n" + content.lstrip("\n")
        parts += chatml_turn(role, content)
    return parts


def llama3_1(messages):
    first = messages[0]
    system = first["content"].strip() if first["role"] == "system" else ""
    date = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    turns = [("system", date + system)]
    turns += [(m["role"], m["content"].strip()) for m in messages if m["role"] != "system"]
    parts = [Special("<|begin_of_text|>")]
    for role, content in turns:
        learned = role == "assistant"
        parts += [
            Special("<|start_header_id|>"),
            Text(role),
            Special("<|end_header_id|>"),
            Text("\n\n"),
            Text(content, learned),
            Special("<|eot_id|>", learned),
        ]
    return parts


def mistral(messages):
    system, turns = "", messages
    if messages[0]["role"] == "system":
        system, turns = messages[0]["content"] + "\n\n", messages[1:]
    parts = [Special("<s>")]
    for index, message in enumerate(turns):
        if message["role"] == "user":
            folded = system if index == len(turns) - 2 else ""
            question = Text(" " + folded + message["content"])
            parts += [Special("[INST]"), question, Special("[/INST]")]
        else:
            parts += [Text(" " + message["content"], True), Special("</s>", True)]
    return parts


def mistral_old(messages):
    system, turns = "", messages
    if messages[0]["role"] == "system":
        system, turns = messages[0]["content"] + "\n\n", messages[1:]
    parts = [Special("<s>")]
    for index, message in enumerate(turns):
        if message["role"] == "user":
            folded = system if index == 0 else ""
            parts.append(Text(f" [INST] {folded}{message['content']} [/INST]"))
        else:
            parts += [Text(" " + message["content"], True), Special("</s>", True)]
    return parts


def headings(messages):
    parts = []
    for message in messages:
        if message["role"] == "user":
            parts.append(Text(f"### Instruction:\n{message['content']}\n\n"))
        elif message["role"] == "assistant":
            answer = Text(message["content"], True)
            parts += [Text("### Response:\n"), answer, Special("</s>", True), Text("\n\n")]
    return parts


def alpaca(messages):
    first = messages[0]["content"]
    opening = "Below is an instruction that describes a task"
    if messages[0]["role"] == "system":
        opening = first
    elif "\n\n### Input:\n" in first:
        opening += ", paired with an input that provides further context. "
        opening += "Write a response that appropriately completes the request."
    else:
        opening += ". Write a response that appropriately completes the request."
    return [Special("<s>"), Text(opening + "\n\n"), *headings(messages)]


def style_prompt(messages):
    opening = [Special("<s>")]
    if messages[0]["role"] == "system":
        opening.append(Text(messages[0]["content"] + "\n\n"))
    return opening + headings(messages)


def plain(messages):
    parts = [Special("<s>")]
    for message in messages:
        learned = message["role"] == "assistant"
        parts.append(Text(message["content"], learned))
        parts += [Special("</s>", True)] if learned else []
        parts.append(Text("\n\n"))
    return parts


@dataclass(frozen=True)
class Family:
    template: str
    build: object
    bos: str | None
    eos: str
    special: tuple[str, ...]


def of_trl(name):
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text()


QWEN = (None, "<|im_end|>", ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
LLAMA = (
    "<|begin_of_text|>",
    "<|eot_id|>",
    ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
INST = ("<s>", "</s>", ("<s>", "</s>", "[INST]", "[/INST]"))
OURS = ("<s>", "</s>", ("<s>", "</s>"))

FAMILIES = {
    "chatml": Family(CHATML, chatml, *QWEN),
    "qwen2.5": Family(of_trl("qwen2_5"), qwen2_5, *QWEN),
    "qwen2.5-training": Family(of_trl("qwen2_5_training"), qwen2_5, *QWEN),
    "qwen3": Family(of_trl("qwen3"), qwen3, *QWEN),
    "qwen3-instruct-2507": Family(of_trl("qwen3_instruct_2507"), chatml, *QWEN),
    "llama3.1": Family(of_trl("llama3_1"), llama3_1, *LLAMA),
    "mistral": Family(MISTRAL, mistral, *INST),
    "mistral-v0.1": Family(MISTRAL_OLD, mistral_old, *OURS),
    "alpaca": Family(template_text("alpaca"), alpaca, *OURS),
    "style-prompt": Family(template_text("style-prompt"), style_prompt, *OURS),
    "plain": Family(template_text("plain"), plain, *OURS),
}


def tokenizer_of(family):
    """The bundled tokenizer with the family's special tokens, and its BOS as Llama's is added."""
    tokenizer = load_tokenizer(resolve_model(TINY))
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in family.special])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    tokenizer.eos_token = family.eos
    tokenizer.chat_template = family.template
    if family.bos:
        tokenizer.bos_token = family.bos
        tokenizer.backend_tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(
                    single=f"{family.bos} $A",
                    special_tokens=[(family.bos, tokenizer.bos_token_id)],
                ),
            ]
        )
    return tokenizer


def byte_of():
    """Character of a byte-level vocabulary to its byte. Source: GPT-2's byte-pair encoding."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}


class Builder:
    """Parts to ids and mask."""

    def __init__(self, tokenizer):
        self.backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.backend.encode_special_tokens = True
        self.bytes = byte_of()

    def __call__(self, parts):
        self.ids, self.mask = [], []
        stretch = []
        for part in parts:
            if isinstance(part, Text):
                stretch.append(part)
            else:
                self.flush(stretch)
                self.ids.append(self.backend.token_to_id(part.text))
                self.mask.append(int(part.learned))
                stretch = []
        self.flush(stretch)
        return self.ids, self.mask

    def flush(self, stretch):
        texts = [unicodedata.normalize("NFC", part.text).encode() for part in stretch]
        whole = "".join(part.text for part in stretch)
        assert unicodedata.normalize("NFC", whole).encode() == b"".join(texts)
        learned = [part.learned for part, text in zip(stretch, texts, strict=True) for _ in text]
        at = 0
        for token in self.backend.encode(whole, add_special_tokens=False).ids:
            name = self.backend.id_to_token(token)
            size = len(name)
            if name not in ("<think>", "</think>"):
                assert all(c in self.bytes for c in name)
            self.ids.append(token)
            self.mask.append(int(any(learned[at : at + size])))
            at += size
        assert at == len(learned)


WORDS = (
    "The lighthouse stood",
    "“Don’t,” she said —",
    "naïve café",
    "e\u0301te\u0301",
    "日本語の文",
    "مرحبا",
    "🌊🧵",
    "👩‍👩‍👧",
    "x = 3.14;",
    "\t",
    "\n",
    "\n\n",
    "\u00a0",
    "{{ bos_token }}",
    "{% raw %}",
    "### Response:",
    "### Instruction:\n",
    "<|im_start|>assistant\n",
    "<|im_end|>",
    "</s>",
    "<s>",
    "[INST]",
    "[/INST]",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|endoftext|>",
    "<unk>",
)


def some_text(source):
    words = [source.choice(WORDS) for _ in range(source.randint(1, 7))]
    text = source.choice(["", " ", "\n", "  \n"]).join([*words, "word", *words[:1]])
    before, after = (source.choice(["", "", "", " ", "  ", "\n", "\n\n", " \n "]) for _ in "ab")
    return before + text + after


def conversations(seed):
    """Chats of 1 to 4 turns of each side; some with an empty system message, inputs and thoughts."""
    source = random.Random(seed)
    chats = []
    for _ in range(CONVERSATIONS):
        chat = []
        if source.random() < 0.4:
            system = "" if source.random() < 0.3 else some_text(source)
            chat.append(Message(role="system", content=system))
        for _ in range(source.randint(1, 4)):
            question, answer = some_text(source), some_text(source)
            if source.random() < 0.2:
                question += "\n\n### Input:\n" + some_text(source)
            if source.random() < 0.2:
                thought = source.choice(["", some_text(source)])
                answer = f"<think>\n{thought}\n</think>\n\n{answer}"
            chat += [Message(role="user", content=question)]
            chat += [Message(role="assistant", content=answer)]
        chats.append(chat)
    return chats


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_mask_are_those_of_the_parts(name):
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    vocabulary = vocabulary_of(tokenizer)
    build = Builder(tokenizer)
    chats = conversations(name)
    encoded = encode_many(chats, vocabulary)
    for chat, found in zip(chats, encoded, strict=True):
        ids, mask = build(family.build(chat))
        assert found.input_ids == ids, chat
        assert found.mask == mask, chat
    assert [encode(chat, vocabulary) for chat in chats[:25]] == encoded[:25]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_ends_with_a_learned_end_and_a_sequence_begins_with_at_most_one_bos(name):
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    vocabulary = vocabulary_of(tokenizer)
    bos = tokenizer.convert_tokens_to_ids(family.bos) if family.bos else None
    assert vocabulary.adds_bos == (bos is not None)
    assert vocabulary.ends == {tokenizer.convert_tokens_to_ids(family.eos)}
    for chat in conversations(name)[:50]:
        encoded = encode(chat, vocabulary)
        learned = [t for t, m in zip(encoded.input_ids, encoded.mask, strict=True) if m]
        answers = sum(message["role"] == "assistant" for message in chat)
        assert learned[-1] in vocabulary.ends
        assert sum(token in vocabulary.ends for token in learned) == answers
        assert encoded.input_ids.count(bos) == (bos is not None)
        assert bos is None or encoded.input_ids[0] == bos


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_the_beginning_of_its_row(name):
    family = FAMILIES[name]
    vocabulary = vocabulary_of(tokenizer_of(family))
    chats = [
        [Message(role=m["role"], content=m["content"].strip()) for m in chat]
        for chat in conversations(name)[:50]
    ]
    prompts = encode_many([chat[:-1] for chat in chats], vocabulary, add_generation_prompt=True)
    for prompt, whole in zip(prompts, encode_many(chats, vocabulary), strict=True):
        assert whole.input_ids[: len(prompt.input_ids)] == prompt.input_ids
        first = whole.mask.index(1, len(prompt.input_ids))
        assert first == len(prompt.input_ids)
