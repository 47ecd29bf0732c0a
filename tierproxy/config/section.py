"""What every mapping of the file has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in the file: immutable, and a key that it doesn't know is a fault."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )
