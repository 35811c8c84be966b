"""Licences that a card can name: what is known here, and what is like it."""

import pytest

from tunewright.config.schema import Config, PrepareSection, PublishSection
from tunewright.publish.hub.licences import KNOWN, advice, doubtful


def config_of(**options) -> Config:
    return Config(
        name="x",
        prepare=PrepareSection(source="sample:manuscript"),
        publish=PublishSection(**options),
    )


@pytest.mark.parametrize("licence", sorted(KNOWN))
def test_what_is_known_can_be_configured_and_is_not_doubted(licence):
    config = config_of(license=licence, model_license=licence)
    assert doubtful(config, "dataset") is None
    assert doubtful(config, "gguf") is None


def test_each_part_has_its_licence():
    config = config_of(license="cc-by", model_license="apache2")
    assert doubtful(config, "dataset") == "cc-by"
    assert {doubtful(config, part) for part in ("adapter", "merged", "gguf")} == {"apache2"}
    assert doubtful(config_of(), "adapter") is None


@pytest.mark.parametrize(
    ("named", "first"),
    [
        ("apache2", "apache-2.0"),
        ("cc-by-4", "cc-by-4.0"),
        ("llama-3.1", "llama3.1"),
        ("x" * 60, "apache-2.0"),
    ],
)
def test_the_nearest_is_named_first(named, first):
    assert advice(named).replace(";", ",").split(", ")[0] == first
    assert "`other`" in advice(None)
