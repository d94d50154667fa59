"""Files that are damaged, hostile or of other programs."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import tinygraph
import tinygraph_rnn as lasagne
from tinygraph_rnn.layers import DenseLayer, InputLayer, get_all_param_values
from tinygraph_rnn.saving.names import named


def network():
    return DenseLayer(DenseLayer(InputLayer((None, 4)), 5), 3)


def bits(network):
    return [v.get_value().tobytes() for v in named(network).values()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def refused(path, data, message=".", load=lasagne.load, **options):
    """Is ``data`` refused, and a network not changed?"""
    path.write_bytes(data)
    net = network()
    before = bits(net)
    with pytest.raises(lasagne.SavingError, match=message) as caught:
        load(path, net, **options)
    assert str(path) in str(caught.value)
    assert bits(net) == before


# --- damage --------------------------------------------------------------------------------------


def test_damage_at_200_places_is_found(path):
    lasagne.save(path, network(), author="me")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= rng.integers(1, 256)
        refused(path, data)


def test_every_bit_of_the_header_counts(path):
    lasagne.save(path, network())
    whole = path.read_bytes()
    for at in range(8 + int.from_bytes(whole[:8], "little")):
        data = bytearray(whole)
        data[at] ^= 0x20  # capital letters for small ones, spaces for zeros
        refused(path, data)


def test_a_file_cut_short_is_refused(path):
    lasagne.save(path, network())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 100), *range(12), len(whole) - 1]:
        refused(path, whole[:length])
    refused(path, whole + b"\0", "damaged")
    refused(path, whole + whole, "damaged")


def test_a_checkpoint_that_is_damaged_is_refused(path):
    net = network()
    w = tinygraph.shared(np.ones(3))
    generator = np.random.default_rng(0)
    lasagne.checkpoint(path, net, {w: w + 1}, rng=generator)
    whole, before, now = path.read_bytes(), bits([net, w][:1]), generator.bit_generator.state
    rng = np.random.default_rng(1)
    for k in range(100):
        data = bytearray(whole[:rng.integers(len(whole))] if k % 2 else whole)
        if not k % 2:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with pytest.raises(lasagne.SavingError):
            lasagne.resume(path, net, {w: w + 1}, rng=generator)
    assert bits([net]) == before
    assert generator.bit_generator.state == now
    assert w.get_value().tobytes() == np.ones(3).tobytes()


# --- hostile files -------------------------------------------------------------------------------


def forged(arrays, data=b"", info=None):
    """A file with a right digest: ``arrays`` is the header's JSON text without metadata."""
    body = {"sha256": "0" * 64, "format": 1, "kind": "parameters", "parameters": [],
            "metadata": {}, **(info or {})}
    text = json.dumps(json.dumps(body, separators=(",", ":")))
    head = b'{"__metadata__":{"tinygraph":%s}%s}' % (text.encode(), arrays)
    whole = struct.pack("<Q", len(head)) + head + data
    digest = hashlib.sha256(whole).hexdigest().encode()
    return whole.replace(b"0" * 64, digest, 1)


def array(name="a", dtype="F64", shape=(1,), place=(0, 8)):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": place}
    return b"," + json.dumps({name: entry}).encode()[1:-1]


HOSTILE = {
    "empty": (b"", "cut short"),
    "a pickle": (pickle.dumps({"a": np.ones(3)}), "no safetensors file"),
    "an enormous header": (struct.pack("<Q", 2 ** 63) + b"{}", "cut short"),
    "a header beyond the end": (struct.pack("<Q", 3) + b"{}", "cut short"),
    "no digest": (struct.pack("<Q", 2) + b"{}", "no digest.*foreign=True"),
    "overlapping": (forged(array() + array("b", place=(0, 8)), bytes(8)), "begins at byte 0"),
    "partly overlapping": (forged(array() + array("b", place=(4, 12)), bytes(12)), "byte 4"),
    "a hole": (forged(array() + array("b", place=(16, 24)), bytes(24)), "begins at byte 16"),
    "beyond the end": (forged(array(place=(0, 8)), bytes(4)), "arrays have 8 bytes, but there"),
    "far beyond": (forged(array(place=(2 ** 62, 2 ** 62 + 8)), bytes(8)), "begins at byte"),
    "backwards": (forged(array(place=(8, 0)), bytes(8)), "has -8 bytes"),
    "negative": (forged(array(place=(-8, 0)), bytes(8)), "the place of 'a' is none"),
    "data that nobody owns": (forged(array(), bytes(16)), "have 8 bytes, but there are 16"),
    "a shape that overflows": (forged(array(shape=[2 ** 62, 4], place=(0, 0))), "no memory"),
    "which overflows to the right size": (
        forged(array(dtype="U8", shape=[2 ** 32, 2 ** 32], place=(0, 0))), "no memory"),
    "hidden by a zero": (forged(array(shape=[0, 2 ** 62, 2 ** 62], place=(0, 0))), "no memory"),
    "too large a number": (forged(array(shape=[2 ** 64])), "the shape of 'a' is none"),
    "a negative shape": (forged(array(shape=[-1, -1])), "the shape of 'a' is none"),
    "a float as shape": (forged(array(shape=[1.0])), "the shape of 'a' is none"),
    "a bool as shape": (forged(array(shape=[True])), "the shape of 'a' is none"),
    "many axes": (forged(array(shape=[1] * 5000), bytes(8)), "the shape of 'a' is none"),
    "another size": (forged(array(shape=[2]), bytes(8)), "has 8 bytes, but its shape"),
    "a dtype of others": (forged(array(dtype="BF16", shape=[4]), bytes(8)), "'BF16', which"),
    "no dtype": (forged(array(dtype=[]), bytes(8)), "which NumPy does not have"),
    "not an array": (forged(b',"a":[]'), "not described as an array"),
    "a bool that is neither": (forged(array(dtype="BOOL", place=(0, 1)), b"\2",
                                      {"parameters": ["a"]}), "neither 0 nor 1"),
    "a key twice": (forged(array() + array(), bytes(8)), "a key stands twice"),
    "metadata twice": (forged(b',"__metadata__":{}'), "a key stands twice"),
    "deep JSON": (forged(b',"a":' + b"[" * 100_000), "header cannot be read"),
    "a long number": (forged(b',"a":' + b"9" * 100_000), "header cannot be read|not described"),
    "no JSON": (forged(b",,"), "header cannot be read"),
    "no UTF-8": (forged(b',"\xff":1'), "header cannot be read"),
    "no object": (struct.pack("<Q", 2) + b"[]", "no digest"),
    "parameters that are not there": (forged(b"", info={"parameters": ["x"]}), "does not have"),
    "a parameter twice": (forged(array(), bytes(8), {"parameters": ["a", "a"]}), "twice"),
    "no parameters": (forged(b"", info={"parameters": 3}), "says nothing of its parameters"),
    "a later format": (forged(b"", info={"format": 2}), "has format 2.*newer release"),
    "no format": (forged(b"", info={"format": None}), "has format None"),
    "of another network": (forged(array(), bytes(8), {"parameters": ["a"]}), "lacks the param"),
}


@pytest.mark.parametrize("data, message", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(data, message, path):
    refused(path, data, message)


def test_what_the_forger_makes_is_taken_where_nothing_is_wrong(path):
    path.write_bytes(forged(array(), struct.pack("<d", 7), {"parameters": ["a"]}))
    assert list(lasagne.load(path)["a"]) == [7]


@pytest.mark.parametrize("name", [n for n in HOSTILE if n != "of another network"])
def test_foreign_opens_no_door(name, path):
    refused(path, HOSTILE[name][0], foreign=True)


# --- other programs ------------------------------------------------------------------------------


def test_files_of_other_programs_need_a_word(path):
    from safetensors.numpy import save_file

    net = network()
    arrays = {name: v.get_value() + 1 for name, v in named(net).items()}
    save_file(arrays, path, {"tinygraph": "no", "format": "np"})
    refused(path, path.read_bytes(), "another program wrote it; .* foreign=True")
    with pytest.raises(lasagne.SavingError, match="foreign=True"):
        lasagne.load(path)
    lasagne.load(path, net, foreign=True)
    assert bits(net) == [a.tobytes() for a in arrays.values()]
    assert set(lasagne.load(path, foreign=True)) == set(arrays)
    with pytest.raises(lasagne.SavingError, match="no digest"):
        lasagne.resume(path, net, {})


def test_a_damaged_file_of_ours_is_not_taken_as_foreign(path):
    lasagne.save(path, network())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    refused(path, data, "is damaged", foreign=True)


# --- lists of values -----------------------------------------------------------------------------


def zipped(*members, **options):
    """A zip archive of (name, bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(value=None, header=None):
    """A .npy file, or a header of one that lies."""
    buffer = io.BytesIO()
    if header is None:
        np.save(buffer, value, allow_pickle=True)
    else:
        text = repr(header).encode() + b"\n"
        buffer.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    return buffer.getvalue()


SHAPES = [(4, 5), (5,), (5, 3), (3,)]
GOOD = [(f"arr_{k}.npy", npy(np.full(s, 2.0))) for k, s in enumerate(SHAPES)]


class Bomb:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_npz_round_trip_with_numpy(tmp_path):
    net, other = network(), network()
    np.savez(tmp_path / "lasagne.npz", *get_all_param_values(net))
    lasagne.load_npz(tmp_path / "lasagne.npz", other)
    assert bits(other) == bits(net)
    lasagne.save_npz(tmp_path / "ours", net)
    with np.load(tmp_path / "ours", allow_pickle=False) as file:
        values = [file[f"arr_{k}"] for k in range(len(file.files))]
    assert [v.tobytes() for v in values] == bits(net)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(">f8"), lambda a: a])
def test_npz_layouts(change, tmp_path):
    net = network()
    values = [np.random.default_rng(k).normal(size=s) for k, s in enumerate(SHAPES)]
    np.savez_compressed(tmp_path / "a.npz", *map(change, values))
    lasagne.load_npz(tmp_path / "a.npz", net)
    assert bits(net) == [v.tobytes() for v in values]


def test_npz_of_another_dtype(tmp_path):
    net = network()
    np.savez(tmp_path / "a.npz", *[np.full(s, 0.1, "float32") for s in SHAPES])
    with pytest.raises(lasagne.SavingError, match="of dtype float64, .* float32; pass cast=True"):
        lasagne.load_npz(tmp_path / "a.npz", net)
    lasagne.load_npz(tmp_path / "a.npz", net, cast=True)
    assert get_all_param_values(net)[1][0] == np.float32(0.1)


def lying(shape, kind="<f8"):
    return npy(header={"descr": kind, "fortran_order": False, "shape": shape})


def second(data):
    return zipped(GOOD[0], ("arr_1.npy", data), *GOOD[2:])


NPZ = {
    "not a zip": (b"PK\3\4" + bytes(40), "no .npz file"),
    "empty": (b"", "no .npz file"),
    "a pickle": (pickle.dumps(Bomb()), "no .npz file"),
    "too few": (zipped(*GOOD[:3]), "holds 3 arrays, but the network has 4 parameters"),
    "too many": (zipped(*GOOD, ("arr_4.npy", npy(1.0))), "holds 5 arrays"),
    "other names": (zipped(*GOOD[:3], ("b.npy", GOOD[3][1])), "no arr_3.npy for '1.DenseLayer.b'"),
    "objects": (second(npy(np.array([Bomb()] * 5, object))), "arr_1.*never read"),
    "records": (second(npy(np.zeros(5, "f4,f4"))), "array of numbers"),
    "text": (second(npy(np.zeros(5, "U2"))), "array of numbers"),
    "complex": (second(npy(np.zeros(5, complex))), "array of numbers"),
    "another shape": (second(npy(np.zeros((5, 1)))),
                      r"arr_1, for '0\.DenseLayer\.b', has shape \(5, 1\), but"),
    "a huge shape": (second(lying((2 ** 40, 2 ** 20))), "has shape"),
    "a negative shape": (second(lying((-5,))), "array of numbers"),
    "a bool that is neither": (second(npy(np.full(5, 2, "u1")).replace(b"|u1", b"|b1")),
                               "neither 0 nor 1"),
    "a long number": (second(lying((10 ** 900,))), "has shape"),
    "too little data": (second(lying((5,))), "has 0 bytes of data"),
    "too much data": (second(npy(np.zeros(5)) + b"x"), "has 41 bytes of data"),
    "a bomb": (zipped(GOOD[0], ("arr_1.npy", bytes(10 ** 7)), *GOOD[2:],
                      compression=zipfile.ZIP_DEFLATED), "more than an array of shape"),
    "no array": (second(b"hello"), "no .npy file"),
    "a header of code": (second(npy(header="__import__('os')")), "array of numbers"),
    "a deep header": (second(b"\x93NUMPY\x01\x00" + struct.pack("<H", 3000) + b"(" * 3000),
                      "array of numbers"),
    "a header of 4 GB": (second(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"), "no .npy file"),
}


@pytest.mark.parametrize("data, message", NPZ.values(), ids=NPZ)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_npz_is_refused(data, message, path):
    refused(path, data, message, lasagne.load_npz)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(path):
    refused(path, zipped(*GOOD, GOOD[0]), "two arrays of one name", lasagne.load_npz)


def test_a_size_in_the_archive_that_lies_reads_no_more(path):
    data = zipped(GOOD[0], ("arr_1.npy", bytes(10 ** 7)), *GOOD[2:],
                  compression=zipfile.ZIP_DEFLATED)
    real, said = struct.pack("<L", 10 ** 7), struct.pack("<L", 168)
    assert data.count(real) == 2
    tracemalloc.start()
    try:
        refused(path, data.replace(real, said), load=lasagne.load_npz)
        assert tracemalloc.get_traced_memory()[1] < 10 ** 6
    finally:
        tracemalloc.stop()


def test_a_damaged_npz_is_refused_or_says_the_same(path):
    net = network()
    lasagne.save_npz(path, net)
    whole, want = path.read_bytes(), bits(net)
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        other = network()
        before = bits(other)
        try:
            lasagne.load_npz(path, other)
        except lasagne.SavingError:
            refusals += 1
            assert bits(other) == before
        else:  # dates and flags in a zip archive have no checksum
            assert bits(other) == want
    assert refusals > 120
    for length in range(0, len(whole), 100):
        refused(path, whole[:length], load=lasagne.load_npz)
