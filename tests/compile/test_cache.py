"""The store on disk: whole entries or none, whatever happens to the files."""

import multiprocessing
import os
import random
import warnings

import pytest

from tinygraph.store import Store


def only_file(path):
    (file,) = path.iterdir()
    return file


def test_put_and_get(tmp_path):
    store = Store(tmp_path / "deep" / "er")
    assert store.get("a") is None
    store.put("a", b"one")
    store.put("b", b"")
    assert store.get("a") == b"one" and store.get("b") == b""
    store.put("a", b"two")
    assert Store(tmp_path / "deep" / "er").get("a") == b"two"
    assert sorted(p.suffix for p in (tmp_path / "deep" / "er").iterdir()) == [".entry"] * 2


def test_damage_anywhere_is_no_entry(tmp_path):
    store = Store(tmp_path)
    store.put("key", bytes(range(200)))
    file = only_file(tmp_path)
    whole = file.read_bytes()
    rng = random.Random(0)
    for at in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))]:
        broken = bytearray(whole)
        broken[at] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        assert store.get("key") is None, at
    for length in [0, 1, 20, 60, len(whole) - 1]:
        file.write_bytes(whole[:length])
        assert store.get("key") is None
    file.write_bytes(whole + b"x")
    assert store.get("key") is None
    store.put("key", b"new")
    assert store.get("key") == b"new"


def test_an_entry_of_another_key_is_foreign(tmp_path):
    store = Store(tmp_path)
    store.put("a", b"one")
    file = only_file(tmp_path)
    store.put("b", b"two")
    (other,) = [p for p in tmp_path.iterdir() if p != file]
    os.replace(other, file)
    assert store.get("a") is None


def test_a_directory_that_cannot_be_written_warns_once(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    store = Store(blocked / "cache")
    with pytest.warns(UserWarning, match="cannot be written"):
        store.put("a", b"one")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put("a", b"one")
        assert store.get("a") is None
        store.prune()


def test_prune_removes_what_was_used_longest_ago(tmp_path):
    store = Store(tmp_path, limit=5000)
    for k in range(10):
        store.put(str(k), bytes(400))
        os.utime(store._place(str(k)), (1000 + k, 1000 + k))
    assert store.get("0") is not None  # used now
    store.limit = 2000
    store.prune()
    left = [k for k in range(10) if store.get(str(k)) is not None]
    assert 0 in left and 9 in left and 1 not in left
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 1500


def _hammer(path, seed, failures):
    store, rng = Store(path), random.Random(seed)
    for _ in range(150):
        key = str(rng.randrange(5))
        if rng.random() < 0.5:
            store.put(key, (key * 1000).encode())
        else:
            got = store.get(key)
            if got is not None and got != (key * 1000).encode():
                failures.put(key)


def test_processes_share_a_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    workers = [context.Process(target=_hammer, args=(tmp_path, k, failures)) for k in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert failures.empty()
    assert all(p.suffix == ".entry" for p in tmp_path.iterdir())
