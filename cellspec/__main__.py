"""``python -m cellspec``: the same program as ``cellspec``."""

from cellspec.cli import main

if __name__ == "__main__":
    main(prog_name="cellspec")
