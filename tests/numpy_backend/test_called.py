"""What buffers are called: after what lies there in the end."""

from __future__ import annotations

import pytest
from numpy_support import storage_of
from test_packing import GATES, KEPT

from cellspec.backends.naming import Groups
from cellspec.backends.numpy.called import block_name, constant_name
from cellspec.backends.numpy.storage import Block, Storage

BACK = """
    constant  U: [H, H]
    sequence  dy: [H], s[t]: [H]
    carried   `d:h[t]<-`: [H]
      d: [H]        = dy + `d:h[t]<-`
      e: [H]        = d*s[t]
      d:h[t-1]: [H] = U.T @ e
    carry     `d:h[t]<-` <- d:h[t-1]
    give out  e
"""


def called(storage: Storage, *names: str, forwards: bool = True) -> str:
    block = storage.block(names)
    assert block is not None
    return block_name(storage, block, forwards, Groups())


def test_the_last_value_with_a_name_of_its_own_is_the_places() -> None:
    storage = storage_of(GATES, keep=KEPT)
    assert storage.place["i"] == storage.place["i.pre"] == storage.place["Ui@h"]
    assert called(storage, "i.pre") == "i" and called(storage, "i", "f") == "i_f"
    assert called(storage, "h[t]") == "h"


def test_a_place_of_values_without_names_is_temporary() -> None:
    storage = storage_of(GATES, keep=KEPT)
    (number, *_) = [n for n, slots in enumerate(storage.buffers) if all(m.startswith("%") for m in slots.members[0])]
    assert block_name(storage, Block(number, 0, 1), True, Groups()) == "tmp"


def test_a_carry_of_the_backward_pass_is_called_after_what_it_is_of() -> None:
    storage = storage_of(BACK, states=False)
    assert called(storage, "d:h[t]<-", forwards=False) == "d_h"
    assert called(storage, "d:h[t]<-") != "d_h", "forwards carries are states"


@pytest.mark.parametrize(
    ("definition", "name"), [("b/2", "b_half"), ("3*b", "b_scaled"), ("b", "k"), ("b*c", "k"), ("b + c", "k")]
)
def test_a_scaled_parameter_is_called_after_the_parameter(definition: str, name: str) -> None:
    storage = storage_of(
        f"""
        constant  b: [H], c: [H]
        sequence  x[t]: [H]
          k: [H] = {definition}
          a: [H] = x[t]*k + c*x[t]**2 + b
        give out  a
        """
    )
    assert constant_name(storage, "k") == name and constant_name(storage, "b") == "b"
