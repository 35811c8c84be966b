"""What all sections share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from tunewright.config.names import check_name

Name = Annotated[str, AfterValidator(check_name)]


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )
