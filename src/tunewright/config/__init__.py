"""Options: what they are (schema.py) and how they are read (load.py)."""


def version(package: str) -> str:
    """Return the version of an installed package.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed.
    """
    # It takes a tenth of the time in which help is shown, and help needs none.
    from importlib.metadata import version as installed

    return installed(package)
