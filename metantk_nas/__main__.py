"""``python -m metantk_nas`` and the ``metantk-nas`` command."""


def main() -> None:
    """Run the command line."""
    from metantk_nas.cli.app import app  # noqa: PLC0415 - importing the package must not build the command line

    app()


if __name__ == "__main__":
    main()
