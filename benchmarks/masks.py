"""What lengths, resets and reverse cost: forward + backward in float32, beside the same batch without them and beside PyTorch.

    python benchmarks/masks.py
    python benchmarks/masks.py --cells lstm --shape 100,32,64,128 --peer-python ~/torch/bin/python --json masks.json

Lengths are drawn evenly from 1 to T, resets at one step in a hundred. PyTorch's layers run over the padded batch as it is, and
over a ``PackedSequence``, which skips the padding. Ours and PyTorch have a process each; the ways take turns, round by round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cells import FUSED, Case
from machine import available_processors, limit_processors, machine, pools
from mask_worker import RESETS, WAYS
from options import names, shape
from process import Failure, Worker
from report import Spread, divided, heading, number, spread, write

CELLS = "lstm,gru_after,mingru"
ABOUT = (
    f"Milliseconds of forward + backward in float32; lengths even from 1 to T, resets at {RESETS:.0%} of the steps: median and "
    "quartiles over the rounds. ratio: times those of ours without masks ('whole') of the same round."
)
SHAPES = ((200, 16, 32, 32), (100, 32, 64, 128), (100, 64, 256, 512), (1000, 8, 64, 64))


class Result(NamedTuple):
    """One way at one shape: milliseconds, and times ours without masks, round by round."""

    cell: str
    shape: tuple[int, ...]
    contender: str
    way: str
    ms: Spread
    ratio: Spread


def run(case: Case, options: argparse.Namespace) -> list[Result]:
    """All ways of a case; without PyTorch, or where it has no such layer, ours alone."""
    workers: dict[str, Worker] = {}
    rounds: dict[tuple[str, str], list[float]] = {}
    try:
        for name in WAYS:
            if name == "ours" or (case.cell in FUSED and options.peers):
                python = sys.executable if name == "ours" else options.peer_python
                workers[name] = Worker(python, Path(__file__).with_name("mask_worker.py"), pools(case.threads))
                try:
                    workers[name].ask(do="prepare", contender=name, **case._asdict())
                except Failure as failure:
                    if name == "ours":
                        raise
                    print(f"skipped: {name}: {failure}", file=sys.stderr)
                    workers.pop(name).close(force=True)
        turns = [(name, way) for name in workers for way in WAYS[name]]
        for turn in range(options.rounds):
            for name, way in turns[turn % len(turns) :] + turns[: turn % len(turns)]:
                answer = workers[name].ask(**{"do": "time", "pass": way, "seconds": options.seconds, "most": 200})
                rounds.setdefault((name, way), []).append(1e3 * statistics.median(answer["seconds"]))
    finally:
        for worker in workers.values():
            worker.close()
    first = rounds["ours", "whole"]
    return [Result(case.cell, case.shape, *key, spread(rounds[key]), divided(rounds[key], first)) for key in turns]


def print_table(results: Sequence[Result]) -> None:
    """Markdown: milliseconds of the whole batch, the other ways as times that."""
    ways = [(name, way) for name in WAYS for way in WAYS[name]]
    print(f"| cell: T, B, I, H | whole, ms | {' | '.join(f'{name}: {way}' for name, way in ways[1:])} |")
    print(f"| --- | {' | '.join('---' for _ in ways)} |")
    for cell, sizes in dict.fromkeys((result.cell, result.shape) for result in results):
        here = {(r.contender, r.way): r for r in results if (r.cell, r.shape) == (cell, sizes)}
        row = [f"`{cell}`: {', '.join(map(str, sizes))}", number(here["ours", "whole"].ms.median)]
        row += [f"{here[way].ratio.median:.2f}" if way in here else "" for way in ways[1:]]
        print(f"| {' | '.join(row)} |")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="masks.py", description="The cost of lengths, resets and reverse on a CPU.")
    add = parser.add_argument
    add("--cells", type=names, default=CELLS, help="cells (default: %(default)s)")
    add("--shape", type=shape, action="append", metavar="T,B,I,H", help="a shape, may be given again (default: four)")
    add("--no-peers", dest="peers", action="store_false", help="without PyTorch")
    add("--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has PyTorch (default: this one)")
    add("--rounds", type=int, default=7, help="turns of each way (default: %(default)s)")
    add("--seconds", type=float, default=0.2, help="of timed calls in a turn (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 nothing could be measured."""
    options = parse(argv)
    threads = available_processors()
    host = machine(threads)
    limit_processors(threads)
    try:
        cases = [Case(cell, *sizes) for cell in options.cells for sizes in options.shape or SHAPES]
        results = [result for case in cases for result in run(case._replace(threads=threads), options)]
    except Failure as failure:
        print(f"masks: {failure}", file=sys.stderr)
        return 2
    print_table(results)
    if options.json:
        write(options.json, heading(ABOUT, host, rounds=options.rounds, seconds=options.seconds) | {"results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
