"""Any order of operations on a store, and of crashes inside them, against a model of what must be true."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from published import make_run, publish_once

from tunewright.errors import TunewrightError
from tunewright.publish.versions import layout, references, store
from tunewright.publish.versions.cleaning import gc
from tunewright.publish.versions.layout import Key

RUNS = [b"\x01" * 300, b"\x02" * 300]
ALIASES = st.sampled_from(["stable", "prod"])
AGENTS = st.sampled_from(["writer", "critic"])
CALLS = ("fsync", "rename", "replace", "link", "unlink")


class CrashError(BaseException):
    """The process is gone: no handler of ordinary errors sees it."""


class Crashes:
    """Lets the nth call that changes files raise instead."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._real = {name: getattr(os, name) for name in CALLS}

    def __enter__(self) -> None:
        for name, call in self._real.items():

            def watched(*arguments, _call=call, **options):
                self.left -= 1
                if self.left < 0:
                    raise CrashError
                return _call(*arguments, **options)

            setattr(os, name, watched)

    def __exit__(self, *_: object) -> None:
        for name, call in self._real.items():
            setattr(os, name, call)


class StoreMachine(RuleBasedStateMachine):
    """What the model knows: the versions that were told, where the map and each alias point."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.root = self.folder / "store"
        self.runs = [make_run(self.folder / f"run{n}", weights=w) for n, w in enumerate(RUNS)]
        self.versions: set[Key] = set()
        self.content: dict[Key, int] = {}
        self.current: dict[str, set[Key | None]] = {}
        self.aliases: dict[tuple[str, str], set[Key | None]] = {}
        self.count = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(agent=AGENTS, run=st.integers(0, 1), crash=st.none() | st.integers(0, 40))
    def publish(self, agent: str, run: int, crash: int | None) -> None:
        self.count += 1
        key = Key(agent, "voice", f"v{self.count}")
        given = (self.root, self.runs[run], self.folder / "receipt")
        self.content[key] = run
        if crash is None:
            publish_once(*given, agent=agent, version=key.version)
        else:
            try:
                with Crashes(crash):
                    publish_once(*given, agent=agent, version=key.version)
            except CrashError:
                self.settle(key)
                return
        self.versions.add(key)
        self.current[agent] = {key}

    def settle(self, key: Key) -> None:
        """A publisher has died: its version may be there, and the map may name it."""
        if key in layout.versions_in(self.root):
            self.versions.add(key)
            self.current.setdefault(key.agent, {None}).add(key)

    def of(self, agent: str) -> list[Key]:
        return sorted(key for key in self.versions if key.agent == agent)

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), alias=ALIASES, crash=st.none() | st.integers(0, 4))
    def alias(self, data: st.DataObject, alias: str, crash: int | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.versions)))
        place = (key.agent, alias)
        self.aliases[place] = self.pointed(
            lambda: store.alias(self.root, key.agent, alias, key.version),
            self.aliases.get(place, {None}),
            key,
            crash,
        )

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), crash=st.none() | st.integers(0, 4))
    def rollback(self, data: st.DataObject, crash: int | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.versions)))
        self.current[key.agent] = self.pointed(
            lambda: store.rollback(self.root, key.agent, key.version),
            self.current.get(key.agent, {None}),
            key,
            crash,
        )

    def pointed(self, act, before: set, key: Key, crash: int | None) -> set:
        """Return where a pointer may be after an act that moves it."""
        if crash is None:
            act()
            return {key}
        try:
            with Crashes(crash):
                act()
        except CrashError:
            return before | {key}
        return {key}

    @rule(keep=st.none() | st.integers(1, 2), crash=st.none() | st.integers(0, 12))
    def collect(self, keep: int | None, crash: int | None) -> None:
        if not self.root.exists():
            return
        try:
            with Crashes(10**6 if crash is None else crash):
                gc(self.root, grace_hours=0, keep=keep)
        except CrashError:
            pass
        if keep is None:
            return
        left = set(layout.versions_in(self.root))
        for agent in ("writer", "critic"):
            newest = sorted(self.of(agent), key=lambda k: int(k.version[1:]))[-keep:]
            assert left >= set(newest)
        gone = self.versions - left
        certain = [p for p in (*self.current.values(), *self.aliases.values()) if len(p) == 1]
        assert not gone & {key for pointers in certain for key in pointers}
        self.versions &= left
        for pointers in (*self.current.values(), *self.aliases.values()):
            pointers.difference_update(gone)

    @invariant()
    def the_store_is_what_was_done(self) -> None:
        assert store.verify(self.root) == []
        assert set(layout.versions_in(self.root)) == self.versions
        for key in self.versions:
            weights = layout.folder_of(self.root, key) / "adapter" / "adapter_model.safetensors"
            assert weights.read_bytes() == RUNS[self.content[key]]
        for agent, allowed in self.current.items():
            assert self.found(agent) in allowed
        for (agent, alias), allowed in self.aliases.items():
            assert self.found(f"{agent}@{alias}") in allowed

    def found(self, reference: str) -> Key | None:
        try:
            return references.find(self.root, reference)
        except TunewrightError as error:
            assert error.problems[0].code == "E_NOT_FOUND"
            return None


class TestStore(StoreMachine.TestCase):
    settings = settings(
        max_examples=12,
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.mark.faults
class TestStoreLong(StoreMachine.TestCase):
    settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
