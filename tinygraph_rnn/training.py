"""What a training loop has around it: minibatches of sequences, a progress bar, learning curves and
the best parameters so far.

There is no ``fit``: a loop is written in Python and calls compiled functions.  Each thing below
serves such a loop by itself.  What a checkpoint has to keep of them is a dict of plain numbers,
strings and lists (``state``), and the state of the generator that shuffles.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from os import PathLike, fspath
from typing import Any

import numpy as np

from tinygraph import config
from tinygraph_rnn import saving

Sequences = Sequence[Any] | np.ndarray

# --- minibatches ---------------------------------------------------------------------------------


def pad(sequences: Sequences, length: int | None = None, value: Any = 0, dtype: Any = None
        ) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of different lengths as one array, and a mask that tells where they end.

    sequences: arrays (or lists) of shape (time, features...), of any times and the same features.
    length: the number of steps of the result, that of the longest sequence by default.
    value: what stands behind the end of a sequence.  dtype: of the result; by default floatX for
    floats, while integers and bools stay what they are.
    Returns x (batch, length, features...) and mask (batch, length), of floatX, 1 at the steps of a
    sequence and 0 behind its end.

    Raises ValueError where there is no sequence, or where one is a number, has other features than
    the first or is longer than ``length``.
    """
    arrays = _arrays("sequence", sequences, dtype)
    longest = max(range(len(arrays)), key=lambda k: len(arrays[k]))
    if length is None:
        length = len(arrays[longest])
    elif len(arrays[longest]) > length:
        raise ValueError(f"sequence {longest} has {len(arrays[longest])} steps, which do not fit "
                         f"in length={length}")
    x = np.full((len(arrays), length, *arrays[0].shape[1:]), value, arrays[0].dtype)
    mask = np.zeros(x.shape[:2], config.floatX)
    for k, a in enumerate(arrays):
        x[k, :len(a)] = a
        mask[k, :len(a)] = 1
    return x, mask


def _arrays(what: str, sequences: Sequences, dtype: Any = None) -> list[np.ndarray]:
    """The sequences as arrays of one dtype; see ``pad``, whose errors these are."""
    arrays = [np.asarray(s) for s in sequences]
    if not arrays:
        raise ValueError("there are no sequences")
    for k, a in enumerate(arrays):
        if a.ndim == 0:
            raise ValueError(f"{what} {k} is {a!r}, which has no axis of time")
        if a.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(f"{what} {k} has shape {a.shape} and {what} 0 {arrays[0].shape}; "
                             "they may differ in the first axis, time, only")
    if dtype is None:  # an empty list is of float64, which says nothing
        dtype = np.result_type(*({a.dtype for a in arrays if a.size} or {arrays[0].dtype}))
        dtype = config.floatX if dtype.kind == "f" else dtype
    return [a.astype(dtype, copy=False) for a in arrays]


def batch_order(lengths: Sequences, size: int, rng: Any = None, bucket: int = 0,
                drop_last: bool = False) -> list[np.ndarray]:
    """Which sequences make up each batch of one epoch: a list of arrays of their numbers.

    lengths: of the sequences.  size: sequences of a batch; the last one made may have less,
    drop_last leaves those out, which with ``rng`` are others every time.
    rng: a ``numpy.random.Generator`` (or ``RandomState``) or an integer seed; None keeps the
    order of the data.  bucket: how many batches' worth of sequences are sorted by length before
    they are cut into batches, so that a batch holds sequences of about one length; 0 sorts none.
    A larger bucket pads less, and draws batches that are less like random samples.  With ``rng``
    the batches come in random order, long ones among short ones.

    Raises ValueError where ``size`` is not positive or ``bucket`` is negative, TypeError for
    another ``rng``.
    """
    _check_batching(size, bucket)
    rng = _generator(rng)
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    if drop_last:  # before sorting: else it would always be the longest that are left out
        order = order[:len(order) - len(order) % size]
    window = max(bucket * size, 1)
    if bucket > 1:
        steps = np.asarray(lengths)
        windows = (order[k:k + window] for k in range(0, len(order), window))
        order = np.concatenate(
            [w[np.argsort(steps[w], kind="stable")] for w in windows] or [order])
    batches = [order[k:k + size] for k in range(0, len(order), size)]
    if rng is None or bucket <= 1:
        return batches
    return [batches[k] for k in rng.permutation(len(batches))]


def _check_batching(size: int, bucket: int) -> None:
    if size < 1:
        raise ValueError(f"size is {size}; a batch needs at least one sequence")
    if bucket < 0:
        raise ValueError(f"bucket is {bucket}; it must be the number of batches whose sequences "
                         "are sorted by length, or 0 for none")


def _generator(rng: Any) -> Any:
    """NumPy's generator: as given, or from an integer seed; None stays None."""
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    if rng is not None and not hasattr(rng, "permutation"):
        raise TypeError(f"rng is {rng!r}; to shuffle give a numpy.random.Generator or an integer "
                        "seed, to keep the order None")
    return rng


def padding_share(lengths: Sequences, size: int, rng: Any = None, bucket: int = 0,
                  drop_last: bool = False) -> float:
    """The share of the steps of one epoch's batches that is padding, in [0, 1): 0.25 says that
    every fourth step is computed for nothing.  The arguments are those of ``batch_order``; give
    a seed rather than the generator of the training, which would go on from another state.
    """
    steps = np.asarray(lengths)
    order = batch_order(lengths, size, rng, bucket, drop_last)
    computed = sum(int(steps[rows].max()) * len(rows) for rows in order)
    used = sum(int(steps[rows].sum()) for rows in order)
    return 1 - used / computed if computed else 0.0


class batches:
    """Minibatches of sequences of equal or different lengths; iterating over it is one epoch.

        data = batches(sequences, labels, size=20, rng=rng, bucket=10)
        for epoch in range(10):
            for x, mask, y in data:
                cost = train(x, mask, y)

    sequences: n arrays of shape (time, features...), or one array (n, time, features...).
    targets: each has n items, one for every sequence.  A target whose items are as long as their
    sequences is one per step and is padded as they are, with zeros: (batch, time, ...).  Any
    other is one per sequence: a vector or an array of n rows gives (batch, ...).
    length, value: as in ``pad``.  size, rng, bucket, drop_last: as in ``batch_order``.

    Yields (x, mask, *targets): x (batch, time, features...) and mask (batch, time) as ``pad``
    returns them; floats are of floatX.  Every epoch draws a new order from ``rng``, all at its
    beginning, so a checkpoint taken between epochs keeps ``rng.bit_generator.state`` and
    nothing else; an integer seed gives the same sequence of orders in every run.  The target
    ``np.arange(n)`` tells which sequences a batch holds.  ``len`` gives the batches of an epoch.

    Raises ValueError where a target has another number of items than there are sequences, or
    where its items differ in shape without having the lengths of the sequences.
    """

    def __init__(self, sequences: Sequences, *targets: Sequences, size: int,
                 rng: Any = None, bucket: int = 0, drop_last: bool = False,
                 length: int | None = None, value: Any = 0) -> None:
        _check_batching(size, bucket)
        self.sequences = _arrays("sequence", sequences)
        self.lengths = [len(s) for s in self.sequences]
        self.targets = [self._target(k, t) for k, t in enumerate(targets)]
        self.size, self.rng, self.bucket = size, _generator(rng), bucket
        self.drop_last, self.length, self.value = drop_last, length, value

    def _target(self, k: int, target: Sequences) -> list[np.ndarray] | np.ndarray:
        """A list of arrays for a target per step, one array for a target per sequence."""
        if len(target) != len(self.lengths):
            raise ValueError(f"target {k} has {len(target)} items for {len(self.lengths)} "
                             "sequences")
        items = [np.asarray(t) for t in target]
        per_step = [a.ndim > 0 and len(a) == n for a, n in zip(items, self.lengths, strict=True)]
        if all(per_step):
            return _arrays(f"target {k} of sequence", items)
        if len({a.shape for a in items}) > 1:
            wrong = per_step.index(False)
            raise ValueError(
                f"target {k} of sequence {wrong} has shape {items[wrong].shape}, but the sequence "
                f"has {self.lengths[wrong]} steps; a target per step must be as long as its "
                "sequence, and targets per sequence must all have one shape")
        stacked = np.stack(items)
        return stacked.astype(config.floatX) if stacked.dtype.kind == "f" else stacked

    def __len__(self) -> int:
        n = len(self.lengths)
        return n // self.size if self.drop_last else -(-n // self.size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        order = batch_order(self.lengths, self.size, self.rng, self.bucket, self.drop_last)
        return (self._batch(rows) for rows in order)

    def _batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        x, mask = pad([self.sequences[i] for i in rows], self.length, self.value)
        targets = [
            pad([t[i] for i in rows], x.shape[1])[0] if isinstance(t, list) else t[rows]
            for t in self.targets]
        return (x, mask, *targets)


# --- progress ------------------------------------------------------------------------------------


class progress:
    """Iterates over ``iterable`` and shows how far it is, in one line on standard error.

        bar = progress(data, desc="epoch 1")
        for x, mask, y in bar:
            bar.show(cost=train(x, mask, y))
        print(bar.mean("cost"))

    total: the number of items, ``len(iterable)`` where it has one.  desc, unit: what stands before
    the bar, and what is counted.  window: over how many of the last values ``show`` takes means.
    The bar is that of tqdm; where tqdm is not installed (``pip install 'tinygraph[examples]'``
    brings it) a plain line with the same figures takes its place.
    """

    def __init__(self, iterable: Iterable[Any], total: int | None = None, desc: str = "",
                 unit: str = "batch", window: int = 50) -> None:
        self.iterable = iterable
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        self.window = window
        self.values: dict[str, deque[float]] = {}
        self._bar = _bar(total, desc, unit)
        self._shown = -math.inf

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.iterable:
                yield item
                if time.monotonic() - self._shown >= 0.1:
                    self._write_means()
                self._bar.update(1)
        finally:
            self._write_means()
            self._bar.close()

    def show(self, **values: Any) -> None:
        """Values, by name, of this item: numbers or arrays of one number.  The line shows the
        mean of the last ``window`` values of each name."""
        for name, value in values.items():
            self.values.setdefault(name, deque(maxlen=self.window)).append(_number(name, value))

    def mean(self, name: str) -> float:
        """The mean that the line shows.  Raises KeyError for a name that was never shown."""
        if name not in self.values:
            raise KeyError(f"no value named {name!r} was shown; there are {sorted(self.values)}")
        return sum(self.values[name]) / len(self.values[name])

    def _write_means(self) -> None:
        self._shown = time.monotonic()
        self._bar.set_postfix_str(
            ", ".join(f"{name}={self.mean(name):.4g}" for name in self.values), refresh=False)


def _bar(total: int | None, desc: str, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _PlainBar(total, desc, unit)
    return tqdm(total=total, desc=desc or None, unit=unit)


class _PlainBar:
    """The few methods of tqdm's bar that ``progress`` calls: a line that is written over on a
    terminal, ten times a second at the most, and written once, at the end, elsewhere."""

    def __init__(self, total: int | None, desc: str, unit: str) -> None:
        self.total, self.desc, self.unit = total, desc, unit
        self.done, self.postfix, self.shown, self.width = 0, "", -math.inf, 0

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.postfix = text

    def update(self, n: int) -> None:
        self.done += n
        if sys.stderr.isatty() and time.monotonic() - self.shown >= 0.1:
            self.shown = time.monotonic()
            self._write("")

    def close(self) -> None:
        self._write("\n")

    def _write(self, end: str) -> None:
        of = "" if self.total is None else f"/{self.total}"
        line = " ".join(filter(None, (
            self.desc and f"{self.desc}:", f"{self.done}{of} {self.unit}", self.postfix)))
        start = "\r" if sys.stderr.isatty() else ""
        sys.stderr.write(start + line.ljust(self.width) + end)
        sys.stderr.flush()
        self.width = len(line)


def _number(what: str, value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"{what} has shape {array.shape}; one number is needed, such as its mean")
    return float(array.item())


# --- learning curves -----------------------------------------------------------------------------


class Curves:
    """Values by epoch and name: ``curves.add(3, train=0.21, valid=0.25)``.

    ``curves.epochs`` is the list of epochs, ``curves["train"]`` the array of that name's values,
    nan where an epoch has none.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[float, dict[str, float]]] = []

    def add(self, epoch: float, **values: Any) -> None:
        """Values of an epoch (or of a step, or an hour): numbers or arrays of one number.

        Raises ValueError unless ``epoch`` is larger than the last one.
        """
        if self._rows and not epoch > self._rows[-1][0]:
            raise ValueError(f"epoch {epoch} comes after epoch {self._rows[-1][0]}; epochs must "
                             "grow")
        epoch = epoch.item() if isinstance(epoch, np.generic) else epoch  # as JSON has it
        self._rows.append((epoch, {name: _number(name, v) for name, v in values.items()}))

    @property
    def epochs(self) -> list[float]:
        """The epochs that were added."""
        return [epoch for epoch, _ in self._rows]

    @property
    def names(self) -> list[str]:
        """The names of the values, in the order in which they first came."""
        return list(dict.fromkeys(name for _, values in self._rows for name in values))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(f"there is no curve {name!r}, but {self.names}")
        return np.array([values.get(name, math.nan) for _, values in self._rows])

    def table(self, last: int | None = None) -> str:
        """A text table with a line for every epoch, or for the ``last`` ones."""
        names = self.names
        rows = self._rows if last is None else self._rows[max(len(self._rows) - last, 0):]
        lines = [["epoch", *names]] + [
            [f"{epoch:g}", *(f"{v[n]:.6g}" if n in v else "" for n in names)]
            for epoch, v in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines)

    def plot(self, path: str | PathLike[str], title: str = "", xlabel: str = "epoch",
             ylabel: str = "cost", log: bool = False) -> None:
        """The curves as a picture file, of the kind that the ending of ``path`` says.

        log: a logarithmic axis of values.  Raises ValueError where there are no values and
        ImportError where matplotlib is not installed.
        """
        if not self.names:
            raise ValueError("there are no curves to plot: add has not been given values")
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise ImportError("a picture of learning curves needs matplotlib, which is not "
                              "installed: pip install 'tinygraph[examples]'") from error
        figure = Figure(figsize=(7, 4), layout="tight")
        axes = figure.subplots()
        for name in self.names:
            points = [(epoch, values[name]) for epoch, values in self._rows if name in values]
            axes.plot(*zip(*points, strict=True), label=name,
                      marker="o" if len(points) < 50 else None, markersize=3)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title, yscale="log" if log else "linear")
        if all(float(epoch).is_integer() for epoch in self.epochs):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        figure.savefig(fspath(path), dpi=120)

    def state(self) -> dict[str, Any]:
        """All of it for JSON; nan and infinities, which JSON lacks, as strings."""
        return {"rows": [[epoch, {name: _plain(v) for name, v in values.items()}]
                         for epoch, values in self._rows]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Become what ``state`` returned."""
        self._rows = [(epoch, {name: float(v) for name, v in values.items()})
                      for epoch, values in state["rows"]]


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


# --- the best parameters -------------------------------------------------------------------------


class KeepBest:
    """Saves a network whenever a value, such as the validation cost, is better than ever.

        keep = KeepBest("best.safetensors", network, patience=5)
        for epoch in range(100):
            ...
            if keep.best(validation_cost):
                print("saved")
            if keep.stop:
                break
        keep.restore()

    path: the file; network: anything that ``saving.save`` takes.  patience: after how many values
    in a row that were not better ``stop`` is True; None: never.  larger: True where larger
    values are better, as accuracies are.
    ``keep.value`` is the best value, None before the first, ``keep.waited`` how many values have
    come since, and ``keep.count`` how many in all.
    Raises ValueError where ``patience`` is not positive.
    """

    def __init__(self, path: str | PathLike[str], network: Any, patience: int | None = None,
                 larger: bool = False) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience is {patience}; it must be positive, or None to never stop")
        self.path, self.network = path, network
        self.patience, self.larger = patience, larger
        self.value: float | None = None
        self.waited = self.count = 0

    def best(self, value: Any) -> bool:
        """Is ``value`` better than all before?  If so, the network is saved.

        An equal value is not better, and nan never is.
        """
        new = _number("the value", value)
        old = self.value
        better = not math.isnan(new) and (
            old is None or (new > old if self.larger else new < old))
        if better:
            saving.save(self.path, self.network)
            self.value = new
        self.waited = 0 if better else self.waited + 1
        self.count += 1
        return better

    @property
    def stop(self) -> bool:
        """Have ``patience`` values in a row not been better?"""
        return self.patience is not None and self.waited >= self.patience

    def restore(self) -> None:
        """Give the network the parameters that were saved last.

        Raises ValueError where no value has been the best yet; else as ``saving.load``.
        """
        if self.value is None:
            raise ValueError(f"nothing is kept in {fspath(self.path)!r} yet: best has not been "
                             "given a value that is a number")
        saving.load(self.path, self.network)

    def state(self) -> dict[str, Any]:
        """What it has seen, for JSON; the parameters are in the file."""
        return {"value": None if self.value is None else _plain(self.value),
                "waited": self.waited, "count": self.count}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was returned."""
        value = state["value"]
        self.value = None if value is None else float(value)
        self.waited, self.count = int(state["waited"]), int(state["count"])
