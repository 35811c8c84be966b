"""Chat templates of other people: what they may not reach, and what they may not take."""

import os
import resource
import signal
import threading

import psutil
import pytest

from tunewright.errors import TunewrightError
from tunewright.models import rendering
from tunewright.models.frames import Format, written
from tunewright.models.rendering import render
from tunewright.models.templates import NAMES, template_text
from tunewright.models.templating import Refused

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
VALUES = {
    "messages": [{"role": "user", "content": "Hi"}],
    "add_generation_prompt": False,
    "bos_token": "",
    "eos_token": "</s>",
}
INJECTIONS = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ ''|attr(['__cl','ass__']|join) }}",
    "{{ messages.__class__ }}",
    "{{ messages[0].__class__.__base__ }}",
    "{{ [].__class__.__base__.__subclasses__() }}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ {}.__class__ }}",
    "{{ (1).__class__ }}",
    "{{ true.__class__ }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ cycler('a').__class__ }}",
    "{{ cycler|attr('__init__') }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ joiner|attr('__init__')|attr('__globals__') }}",
    "{{ namespace.__init__.__globals__['os'] }}",
    "{{ namespace()|attr('__class__') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ lipsum|attr('__globals__') }}",
    "{{ lipsum.__code__ }}",
    "{{ dict.__base__ }}",
    "{{ dict.mro() }}",
    "{{ range.__class__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception|attr('__globals__') }}",
    "{{ strftime_now.__self__ }}",
    "{{ strftime_now.__class__ }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0[__class__]}'.format(messages) }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('{0.__cla' ~ 'ss__}').format(cycler) }}",
    "{% for f in [''.format] %}{{ f.__globals__ }}{% endfor %}",
    "{% set x = ''.join.__self__ %}{{ x }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.pop() }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{% macro m() %}{% endmacro %}{{ m.__class__ }}",
    "{{ m._func.__globals__ }}{% macro m() %}{% endmacro %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{{ get_flashed_messages.__globals__ }}",
]
BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ messages[0].content * 10**9 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(messages[0].content) }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ 'x'|center(10**9) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{% set ns = namespace(x='x' ~ eos_token) %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% macro f(n) %}{% for i in range(99999) %}{{ f(n + 1) }}{% endfor %}{% endmacro %}{{ f(0) }}",
    "{{ range(99999)|map('string')|batch(1)|list|string * 9999 }}",
    "{{ lipsum(n=99999, max=99999) }}",
    "{{ 'x' * 2000000 }}" + " " * 10_000_000,
]


@pytest.fixture
def canary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "canary" * 6)
    yield tmp_path / "CANARY"
    assert not (tmp_path / "CANARY").exists()


def test_the_shares_are_those_of_the_requirement():
    assert len(INJECTIONS) >= 40
    assert len(BOMBS) >= 10


@pytest.mark.parametrize("template", INJECTIONS)
def test_what_reaches_out_of_the_sandbox_is_refused(canary, template):
    with pytest.raises(Refused) as caught:
        render(template, VALUES)
    assert caught.value.kind in ("unsafe", "fails")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("template", INJECTIONS[:4])
def test_it_is_told_as_what_it_is(canary, template):
    with pytest.raises(TunewrightError) as caught:
        written(
            Format(template, "", "</s>", adds_bos=False),
            VALUES["messages"],
            add_generation_prompt=False,
        )
    assert caught.value.problems[0].code == "E_TEMPLATE_UNSAFE"
    assert caught.value.exit_code == 9


@pytest.fixture
def impatient(monkeypatch):
    """A child that ends what takes half a second: several bombs burn until they are ended."""
    monkeypatch.setattr(rendering, "SECONDS", 0.5)
    rendering._CHILD.end()
    yield
    rendering._CHILD.end()


@pytest.mark.parametrize("template", BOMBS, ids=[bomb[:40] for bomb in BOMBS])
def test_bombs_are_ended_and_the_next_template_is_rendered(impatient, template):
    render(CHATML, VALUES)
    child = psutil.Process(rendering._CHILD._process.pid)
    # The system keeps to this one: more than that is not given.
    assert child.rlimit(psutil.RLIMIT_AS) == (256 * 2**20, 256 * 2**20)
    seconds, of_the_dead = processor_seconds(child), processor_seconds(None)
    with pytest.raises(Refused) as caught:
        render(template, VALUES)
    assert caught.value.kind in ("limit", "fails")
    after = processor_seconds(child)
    if after is None:
        after = processor_seconds(None) - of_the_dead
    assert after - seconds < 1
    assert render(CHATML, VALUES) == "<|im_start|>user\nHi<|im_end|>\n"


def processor_seconds(child: psutil.Process | None) -> float | None:
    """Return what a process has used; without one, all children that have ended. None: it has ended itself."""
    if child is None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    try:
        return sum(child.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return None


def test_a_bomb_is_told_with_its_limit():
    with pytest.raises(TunewrightError, match="E_TEMPLATE_LIMIT") as caught:
        written(
            Format(BOMBS[0], "", "", adds_bos=False),
            VALUES["messages"],
            add_generation_prompt=False,
        )
    assert "it takes longer than 2 s" in caught.value.problems[0].message
    with pytest.raises(Refused, match="memory"):
        render("{{ messages[0].content * 10**9 }}", VALUES)


def test_reading_alone_may_not_take_more_either(impatient):
    """Jinja computes constants as it reads them."""
    with pytest.raises(Refused) as caught:
        render("{{ 9 ** (9 ** 9) }}", None)
    assert caught.value.kind == "limit"


def test_a_users_file_that_is_a_bomb_is_refused(tmp_path):
    file = tmp_path / "bomb.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}{% endfor %}{{ 'x' * 10**9 }}")
    with pytest.raises(TunewrightError, match="E_TEMPLATE_LIMIT") as caught:
        template_text(str(file))
    assert caught.value.problems[0].where == str(file)


def test_what_breaks_it_leaves_others_alone_in_every_thread(impatient):
    """While one thread waits for the end of a bomb, others wait for their turn, and get their answer."""
    answers = []

    def ask():
        answers.append(render(CHATML, VALUES))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    bomb = threading.Thread(target=lambda: pytest.raises(Refused, render, BOMBS[0], VALUES))
    bomb.start()
    for thread in threads:
        thread.start()
    for thread in (bomb, *threads):
        thread.join(60)
    assert answers == ["<|im_start|>user\nHi<|im_end|>\n"] * 4


def test_a_child_that_was_killed_is_begun_anew():
    render(CHATML, VALUES)
    os.kill(rendering._CHILD._process.pid, signal.SIGKILL)
    with pytest.raises(Refused):
        for _ in range(3):
            render(CHATML, VALUES)
            os.kill(rendering._CHILD._process.pid, signal.SIGKILL)
    assert render(CHATML, VALUES).startswith("<|im_start|>user")


def test_a_forked_process_has_a_child_of_its_own():
    render(CHATML, VALUES)
    own = rendering._CHILD._process.pid
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, render(CHATML, VALUES).encode()[:12])
            os.write(writer, str(rendering._CHILD._process.pid != own).encode())
            rendering._CHILD.end()
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"<|im_start|>True"
    os.close(reader)
    assert render(CHATML, VALUES)
    assert rendering._CHILD._process.pid == own


@pytest.mark.parametrize("name", NAMES)
def test_our_own_need_no_other_process(monkeypatch, name):
    monkeypatch.setattr(rendering._CHILD, "render", lambda *_: pytest.fail("rendered by the child"))
    assert "Hi" in render(template_text(name), VALUES)


def test_what_a_template_sees_is_what_it_was_given():
    text = "{{ messages[0].content }}|{{ strftime_now('%Y') }}|{{ messages[0].content.title() }}"
    content = 'a "quoted"\nline — 🙂\u2028\x00'
    values = VALUES | {"messages": [{"role": "user", "content": content}]}
    assert render(text, values) == f"{content}|2024|{content.title()}"
