"""Options of what makes training faster."""

from typing import Literal

from pydantic import Field

from tunewright.config.schema.base import Section

Technique = Literal["auto"] | bool
OTHERS = ("backend", "self_check")
"""Options that are no techniques."""


class AccelSection(Section):
    """Techniques that change speed and not numbers. `accel: off` turns all of them off."""

    backend: Literal["transformers", "unsloth"] = Field(
        default="transformers",
        description="Who loads the model and runs its layers. `unsloth`: Unsloth's loader and kernels, on one GPU and "
        "with `pip install unsloth`; data, masks, steps, checkpoints and checks stay Tunewright's.",
    )
    label_only_head: Technique = Field(
        default="auto",
        description="Output head and loss only where there is a label.",
    )
    packing: Technique = Field(
        default="auto",
        description="Rows of an optimizer step end to end in one pass: no padding, and no row sees another.",
    )
    length_bucketing: Technique = Field(
        default="auto",
        description="Rows of an optimizer step padded together with rows of like length, where they are not "
        "packed.",
    )
    shared_prefix: Technique = Field(
        default="auto",
        description="Tokens that several rows of a step begin with run once; `auto`: where that saves 2 % and "
        "more. Not with dropout.",
    )
    fused_lora: Technique = Field(
        default="auto",
        description="A linear and its adapter as one operation, forward and backward: fewer passes over memory, and no "
        "float32 copies of what adapters read.",
    )
    liger_kernel: Technique = Field(
        default="auto",
        description="Liger's kernels for norms and gated MLPs, on a GPU with `pip install liger-kernel`. They stay off "
        "where the first rows do not run faster with them.",
    )
    torch_compile: Technique = Field(
        default="auto",
        description="Norms and gated MLPs compiled by torch; `auto`: no, as compiling takes a while. They stay off "
        "where the first rows do not run faster with them.",
    )
    self_check: bool = Field(
        default=True,
        description="Before the first step, compare loss and gradient of some rows with the plain path, which "
        "is taken where they differ.",
    )


def switched(value: object) -> object:
    """Return what `accel: off` or `accel: auto` stands for; anything else as it is."""
    if value in ("off", False):
        return {name: False for name in AccelSection.model_fields if name not in OTHERS}
    return {} if value in ("auto", "on", True) else value
