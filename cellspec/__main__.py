"""``python -m cellspec``: the same program as ``cellspec``."""

from cellspec.stopping import run

if __name__ == "__main__":
    run()
