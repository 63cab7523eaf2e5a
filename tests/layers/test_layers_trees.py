"""Trees of arrays: maps, one flat vector, norms; and parameters in files."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from layer_support import layer, regularised
from support import same_bits

from cellspec import layers
from cellspec.layers import AnyLayer, trees


class Pair(NamedTuple):
    one: Any
    other: Any


TREE = (Pair(np.arange(6.0).reshape(2, 3), (np.array(7.0),)), np.array([8.0, 9.0]))


def model(**changes: Any) -> AnyLayer:
    """Every kind of layer, in float32."""
    options = {"units": 4, "cell": "gru", "dtype": np.float32, "merge": "concat", "learn_state": True, **changes}
    dtype, units = options["dtype"], options["units"]
    both = layers.Bidirectional(
        layer("lstm", 3, units, dtype=dtype), layer(options["cell"], 3, units, dtype=dtype), options["merge"]
    )
    width = both.output_size
    return layers.Stack(both, layers.Residual(layer("elman", width, width, dtype=dtype, learn_state=options["learn_state"])))


# --- trees -----------------------------------------------------------------------------------------------------------


def test_a_map_keeps_the_structure() -> None:
    doubled = layers.tree_map(lambda a, b: a + b, TREE, TREE)
    assert isinstance(doubled[0], Pair) and same_bits(doubled[0].one, 2 * TREE[0].one) and same_bits(doubled[1], 2 * TREE[1])
    assert list(trees.named(TREE)) == ["0.one", "0.other.0", "1"]
    assert [array.size for array in layers.leaves(TREE)] == [6, 1, 2]
    with pytest.raises(ValueError, match="the trees differ in structure: one has Pair of 2 where another has not"):
        layers.tree_map(lambda a, b: a, TREE, (TREE[0][0], TREE[1]))


def test_a_flat_vector_and_its_views() -> None:
    vector, unflatten = layers.flatten(TREE)
    np.testing.assert_array_equal(vector, [0, 1, 2, 3, 4, 5, 7, 8, 9])
    views = unflatten(vector)
    assert isinstance(views[0], Pair) and same_bits(views, TREE)
    vector *= 2
    assert same_bits(views, layers.tree_map(lambda a: 2 * a, TREE))
    assert TREE[1][0] == 8  # the tree itself is another memory
    with pytest.raises(ValueError, match=r"the vector has shape \(8,\), expected \(9,\)"):
        unflatten(vector[1:])
    with pytest.raises(TypeError, match="one dtype, got float32, float64"):
        layers.flatten((np.zeros(1), np.zeros(1, np.float32)))
    with pytest.raises(TypeError, match="got no array"):
        layers.flatten(())


def test_training_through_a_flat_vector() -> None:
    """What an optimiser does to the vector happens to the parameters that the layer reads."""
    tested, rng = layer("lstm", 2, 3), np.random.default_rng(0)
    vector, unflatten = layers.flatten(tested.init_params(rng))
    params, x, target = unflatten(vector), rng.normal(size=(4, 8, 2)), rng.normal(size=(4, 8, 3))
    losses = []
    for _ in range(30):
        y, _, tape = tested.forward(params, x)
        losses.append(((y - target) ** 2).mean())
        grads, _ = layers.clip_by_global_norm(tested.backward(params, tape, 2 * (y - target) / y.size).params, 1.0)
        vector -= 0.5 * layers.flatten(grads)[0]
    assert (np.diff(losses) < 0).all() and losses[-1] < 0.97 * losses[0]


def test_clipping() -> None:
    norm = float(np.sqrt(sum((array**2).sum() for array in layers.leaves(TREE))))
    clipped, before = layers.clip_by_global_norm(TREE, 1.0)
    assert before == pytest.approx(norm) and isinstance(clipped[0], Pair)
    assert same_bits(clipped, layers.tree_map(lambda a: a * (1 / norm), TREE))
    assert layers.clip_by_global_norm(clipped, 1.0 + 1e-12)[0] is clipped
    for bad in (np.inf, np.nan):
        tree = (np.array([bad, 1.0]),)
        kept, found = layers.clip_by_global_norm(tree, 1.0)
        assert kept is tree and not np.isfinite(found)
    large = (np.full(2, 3e30, np.float32),)  # its square is none in float32
    small, found = layers.clip_by_global_norm(large, 1.0)
    assert small[0].dtype == np.float32 and np.allclose(small[0], 0.5**0.5) and found == pytest.approx(3e30 * 2**0.5)
    for limit in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="expected a positive number"):
            layers.clip_by_global_norm(TREE, limit)


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    for number, tested in enumerate((layer("lstm", 3, 4), model(), layers.Layout(model(dtype=np.float64)))):
        params = tested.init_params(np.random.default_rng(number))
        path = tmp_path / f"{number}.safetensors"
        layers.save(path, tested, params)
        loaded = layers.load(str(path), tested)
        assert same_bits(loaded, params) and isinstance(loaded, type(params))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.safetensors" for number in range(3)]


def test_what_a_file_says(tmp_path: Path) -> None:
    tested = model()
    layers.save(tmp_path / "m", tested, tested.init_params(np.random.default_rng(0)))
    data = (tmp_path / "m").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    facts = header.pop("__metadata__")
    assert {"0.forward.Wi", "0.backward.Un", "1.cell.U", "1.state.h"} <= set(header) and len(header) == 12 + 9 + 4
    assert facts["0.forward.CELL"] == "lstm" and facts["0.forward.dims"] == "I = 3, H = 4" and facts["0.merge"] == "concat"
    assert facts["0.forward.SPEC_SHA256"] == tested.layers[0].layers.forward.module.SPEC_SHA256  # type: ignore[attr-defined]


def test_arrays_in_any_order_are_saved(tmp_path: Path) -> None:
    tested = layer("lstm", 3, 4)
    params = tested.init_params(np.random.default_rng(0))
    layers.save(tmp_path / "m", tested, layers.tree_map(np.asfortranarray, params))
    assert same_bits(layers.load(tmp_path / "m", tested), params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": 5}, "0.forward.dims is I = 3, H = 4, but that of the layer is I = 3, H = 5"),
        ({"cell": "lstm"}, "0.backward.CELL is gru, but that of the layer is lstm"),
        ({"merge": "sum"}, "0.merge is concat, but that of the layer is sum"),
        ({"dtype": np.float64}, "0.forward.Wi is float32(4, 3), expected float64(4, 3)"),
        ({"learn_state": False}, "there is no parameter '1.W'"),
    ],
)
def test_a_file_of_another_model(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    tested, path = model(), tmp_path / "m.safetensors"
    layers.save(path, tested, tested.init_params(np.random.default_rng(0)))
    with pytest.raises(ValueError) as caught:
        layers.load(path, model(**changes))
    assert str(caught.value) == f"{path}: {message}"


def test_a_file_of_another_spec(tmp_path: Path) -> None:
    plain = layer("gru", 3, 4)
    other = layers.Layer(regularised("gru", ("h",)), I=3, H=4, dtype=np.float64)
    layers.save(tmp_path / "m", plain, plain.init_params(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"SPEC_SHA256 is [0-9a-f]{64}, but that of the layer is [0-9a-f]{64}"):
        layers.load(tmp_path / "m", other)


def test_a_file_of_more_than_the_model(tmp_path: Path) -> None:
    deep, path = layers.Residual(layer("gru", 3, 3)), tmp_path / "m"
    layers.save(path, deep, deep.init_params(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="m: residual is yes, of which the layer knows nothing"):
        layers.load(path, layer("gru", 3, 3))


def test_what_is_no_file_of_parameters(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(FileNotFoundError):
        layers.load(path, model())
    tested = model()
    layers.save(path, tested, tested.init_params(np.random.default_rng(0)))
    whole = path.read_bytes()
    for data in (b"", b"no parameters", whole[:-1], whole[:40]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="m is no safetensors file: "):
            layers.load(path, tested)


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested, path = layer("gru", 3, 4), tmp_path / "m"
    params = tested.init_params(np.random.default_rng(0))
    layers.save(path, tested, params)
    with pytest.raises(ValueError, match=r"params: Wr is float64\(4, 2\), expected float64\(4, 3\)"):
        layers.save(path, tested, params._replace(Wr=params.Wr[:, :2]))
    with pytest.raises(ValueError, match="params: there is no parameter 'Wr'"):
        layers.save(path, tested, ())

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        layers.save(path, tested, layers.tree_map(lambda a: a + 1, params))
    assert same_bits(layers.load(path, tested), params) and len(list(tmp_path.iterdir())) == 1


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    tested = layer("gru", 3, 4)
    for call in (lambda: layers.load(tmp_path / "m", tested), lambda: layers.save(tmp_path / "m", tested, ())):
        with pytest.raises(ImportError, match=r"need safetensors: pip install 'cellspec\[layers\]'"):
            call()
