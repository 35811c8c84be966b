"""Tunewright: from your own text to a fine-tuned language model you can trust.

Each stage is `verb(config, artifact, *, listener=...) -> artifact`; `run` is all of them. Importing the
package loads none of the heavy libraries: they come with the first call that needs them.
"""

from tunewright.config.load import load_config
from tunewright.data import check, prepare
from tunewright.errors import TunewrightError
from tunewright.evaluate import compare
from tunewright.export import export
from tunewright.merge import merge
from tunewright.pipeline import run
from tunewright.publish import publish
from tunewright.pushing import push
from tunewright.report import report
from tunewright.serve import chat, chat_compared, serve
from tunewright.train import plan, train

__all__ = [
    "TunewrightError",
    "chat",
    "chat_compared",
    "check",
    "compare",
    "export",
    "load_config",
    "merge",
    "plan",
    "prepare",
    "publish",
    "push",
    "report",
    "run",
    "serve",
    "train",
]
