"""The program: what ``cellspec`` and ``python -m cellspec`` start."""

from cellspec.tools import stopping


def run() -> None:
    """Prepare for signals before anything large is imported, then do what the command line says."""
    stopping.install()
    from cellspec.cli import main

    try:
        main(prog_name="cellspec")
    except stopping.Stopped as stopped:
        stopping.end(stopped.args[0])


if __name__ == "__main__":
    run()
