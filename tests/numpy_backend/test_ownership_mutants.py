"""Mistakes in what keeps memory apart are found by the tests of it: each turns the test that is named beside it red."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import test_ownership
import test_threads
from cuda_host import import_text
from support import ROOT

import cellspec

GRU = ROOT / "specs" / "gru.yaml"

MISTAKES: dict[str, tuple[str, str, Callable[[], None]]] = {
    "calls are not counted": (
        "        owner.use += 1\n",
        "",
        lambda: test_ownership.test_copies_of_a_tape_keep_their_numbers(GRU, "plain", None),
    ),
    "calls are counted when they are over": (
        "        owner.use += 1\n        return _forward_checked("
        "owner.spare(params), owner.spare(x), owner.spare(state), masks, key, ws, checkpoint)",
        "        y, final, tape = _forward_checked(params, x, state, masks, key, ws, checkpoint)\n"
        "        owner.use += 1\n        return y, final, tape._replace(use=owner.use)",
        lambda: test_ownership.test_interrupted_calls_leave_no_wrong_numbers("gru", "plain", None),
    ),
    "the memory of a step is taken to be there before it is": (
        "self.batch, dtype = None, self.dtype",
        "self.batch, dtype = B, self.dtype",
        lambda: test_ownership.test_interrupted_steps_leave_no_wrong_numbers("gru"),
    ),
    "arguments that lie in the workspace are not copied": (
        "return id(value) in self.arrays or",
        "return False and",
        lambda: test_ownership.test_gradients_may_be_the_next_parameters(GRU),
    ),
    "copies have the numbers of nobody": (
        "            np.copyto(own, array)\n",
        "            own[...] = 0\n",
        lambda: test_ownership.test_copies_of_a_tape_keep_their_numbers(GRU, "plain", None),
    ),
    "a copy is not stale": (
        "for array in _arrays(self)], self.owner.use",
        "for array in _arrays(self)], 1",
        lambda: test_ownership.test_copies_of_a_tape_keep_their_numbers(GRU, "masked", None),
    ),
    "parameters are not compared": (
        "    _check_same(params, tape)\n",
        "",
        lambda: test_ownership.test_gradients_are_those_of_the_parameters_of_the_tape(GRU),
    ),
    "changes in place are not looked for": (
        "if (marks := _marks(params)) != tape.marks and",
        "if (marks := tape.marks) != tape.marks and",
        lambda: test_ownership.test_gradients_are_those_of_the_parameters_of_the_tape(GRU),
    ),
    "named tuples go by position": (
        "return kind(**dict(zip(fields, value)))",
        "return kind(*value)",
        lambda: test_ownership.test_named_tuples_are_taken_by_name(GRU),
    ),
    "a step gives its output twice": (
        'return np.array(values["h"]), State(*map(np.array, final))',
        'return values["h"], final',
        lambda: test_ownership.test_results_share_no_memory(GRU, 3),
    ),
    "another thread is let in": (
        'return self.thread.setdefault("id", me) == me',
        "return True",
        lambda: test_threads.test_a_call_meets_another_in_its_midst(None),
    ),
    "another thread's step is let in": (
        'if thread.setdefault("id", me) != me:',
        "if False:",
        lambda: test_threads.test_a_call_meets_another_in_its_midst(None),
    ),
    "a call is never over": (
        '        """The call is over."""\n        self.thread.clear()',
        '        """The call is over."""',
        lambda: test_threads.test_a_call_meets_another_in_its_midst(None),
    ),
    "threads run segments in the same memory": (
        "tape.buffers if alone else copy(tape.buffers)",
        "tape.buffers",
        lambda: test_threads.test_a_shared_tape_is_not_written_to(),
    ),
    "nobody looks whether the tape was overwritten meanwhile": (
        "        _check_fresh(tape)\n    finally:",
        "    finally:",
        lambda: test_threads.test_a_backward_pass_that_reads_what_is_overwritten_is_refused(),
    ),
}


@cache
def text() -> str:
    return cellspec.generate(test_ownership.cell_of(GRU))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, check = MISTAKES[mistake]
    assert text().count(old) == 1
    check()
    module = import_text(text().replace(old, new), "mistaken")
    for tests in (test_ownership, test_threads):
        monkeypatch.setattr(tests, "module_of", lambda path: module)
        monkeypatch.setattr(tests, "module_named", lambda name: module)
    monkeypatch.setitem(test_ownership.COPIES, "pickle", test_ownership.COPIES["deepcopy"])  # it is not imported
    with pytest.raises((AssertionError, ValueError, RuntimeError, pytest.fail.Exception)):
        check()
