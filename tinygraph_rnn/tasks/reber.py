"""Words of the Reber grammar and of the embedded Reber grammar.

Reber 1967, Implicit learning of artificial grammars, has the first; the second, which puts a word
of the first between two equal symbols, is experiment 1 of Hochreiter and Schmidhuber 1997, Long
short-term memory.  After each symbol one or two symbols may come next, and saying which ones is
the task.  In the embedded grammar the last symbol but one is the second symbol again, so it has
to be remembered through the word in between.

>>> from tinygraph_rnn.tasks import REBER
>>> REBER.word(rng=0)
'BTSSXSE'
>>> "BTXSE" in REBER, "BTXXE" in REBER
(True, False)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph_rnn.random import get_rng
from tinygraph_rnn.utils import floatX

SYMBOLS = "BTSXPVE"

# Row k holds, for every symbol that may follow in state k, the state that it leads to.  The last
# state has no row: there a word ends.
_TABLE: tuple[Mapping[str, int], ...] = (
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 7},
)


def _embedded(table: Sequence[Mapping[str, int]], marks: str) -> tuple[Mapping[str, int], ...]:
    """The automaton of B m w m E for every mark m and every word w of ``table``."""
    n = len(table) + 1
    last = 2 + n * len(marks)
    rows: list[Mapping[str, int]] = [
        {"B": 1}, {mark: 2 + n * k for k, mark in enumerate(marks)}]
    for k, mark in enumerate(marks):
        rows += [{symbol: state + 2 + n * k for symbol, state in row.items()} for row in table]
        rows.append({mark: last})
    return (*rows, {"E": last + 1})


def _generator(rng: Any) -> Any:
    """NumPy's generator: as given, from an integer seed, or the one that initialisers use."""
    if rng is None:
        return get_rng()
    return np.random.default_rng(rng) if isinstance(rng, (int, np.integer)) else rng


@dataclass(frozen=True, eq=False)
class Grammar:
    """A regular grammar: the words that lead through ``table`` from state 0 to its end.

    table: per state the symbols that may follow, each with the state that it leads to.
    The ``rng`` of a method is a generator of NumPy or an integer seed; None takes the one that
    ``tinygraph_rnn.random.get_rng`` gives, NumPy's global state by default.
    """

    table: tuple[Mapping[str, int], ...]

    def word(self, min_length: int = 0, rng: Any = None) -> str:
        """A random word of ``min_length`` symbols at least; wherever two symbols may follow, both
        are as likely."""
        rng = _generator(rng)
        while True:
            state, symbols = 0, []
            while state < len(self.table):
                row = self.table[state]
                symbols.append(list(row)[int(rng.uniform(0, len(row)))])
                state = row[symbols[-1]]
            if len(symbols) >= min_length:
                return "".join(symbols)

    def __contains__(self, word: str) -> bool:
        state = 0
        for symbol in word:
            if state == len(self.table) or symbol not in self.table[state]:
                return False
            state = self.table[state][symbol]
        return state == len(self.table)

    def allowed(self, word: str) -> np.ndarray:
        """Which symbols may come after each symbol of ``word``: (len(word), 7), 1 where allowed;
        after the last E none.  Raises ValueError where ``word`` is no beginning of a word."""
        out = np.zeros((len(word), len(SYMBOLS)))
        state = 0
        for k, symbol in enumerate(word):
            if state == len(self.table) or symbol not in self.table[state]:
                raise ValueError(f"{symbol!r}, symbol {k} of {word!r}, cannot come there")
            state = self.table[state][symbol]
            if state < len(self.table):
                out[k, [SYMBOLS.index(s) for s in self.table[state]]] = 1
        return floatX(out)

    def example(self, min_length: int = 0, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """A random word without its last symbol, one-hot, and the symbols that may come next:
        two arrays (length - 1, 7) of floatX."""
        word = self.word(min_length, rng)[:-1]
        return one_hot(word), self.allowed(word)

    def examples(self, n: int, min_length: int = 0, rng: Any = None
                 ) -> list[tuple[np.ndarray, np.ndarray]]:
        """``n`` of ``example``."""
        rng = _generator(rng)
        return [self.example(min_length, rng) for _ in range(n)]


REBER = Grammar(_TABLE)
EMBEDDED_REBER = Grammar(_embedded(_TABLE, "TP"))


def one_hot(word: str) -> np.ndarray:
    """The symbols of ``word`` as rows of the identity: (len(word), 7) of floatX, in the order
    B, T, S, X, P, V, E."""
    return floatX(np.eye(len(SYMBOLS)))[[SYMBOLS.index(symbol) for symbol in word]]


def as_word(sequence: Any) -> str:
    """The word whose symbols have the largest entries in the rows of ``sequence``: the inverse of
    ``one_hot``."""
    return "".join(SYMBOLS[int(np.argmax(row))] for row in np.asarray(sequence))


def padded_batch(words: Iterable[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words of different lengths as one batch: what is read, what really came next, and how often.

    Returns inputs (n, time, 7), one-hot, of floatX; labels (n, time), the number of the next
    symbol, int32; lengths (n,), how many symbols of each word are followed by another, int32.
    Behind the end of a word both are 0.
    """
    words = list(words)
    lengths = np.array([len(word) - 1 for word in words], np.int32)
    inputs = floatX(np.zeros((len(words), lengths.max(), len(SYMBOLS))))
    labels = np.zeros(inputs.shape[:2], np.int32)
    for k, word in enumerate(words):
        inputs[k, :lengths[k]] = one_hot(word[:-1])
        labels[k, :lengths[k]] = [SYMBOLS.index(symbol) for symbol in word[1:]]
    return inputs, labels, lengths


# The same as functions, under the names that course notes on this task use.

def in_grammar(word: str) -> bool:
    """Is ``word`` one of the Reber grammar?"""
    return word in REBER


def in_embedded_grammar(word: str) -> bool:
    """Is ``word`` one of the embedded Reber grammar?"""
    return word in EMBEDDED_REBER


def get_one_example(minLength: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """``REBER.example`` of ``minLength`` symbols at least."""
    return REBER.example(minLength)


def get_n_examples(n: int, minLength: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    """``n`` of ``get_one_example``."""
    return REBER.examples(n, minLength)


def get_one_embedded_example(minLength: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """``EMBEDDED_REBER.example`` of ``minLength`` symbols at least."""
    return EMBEDDED_REBER.example(minLength)


def get_n_embedded_examples(n: int, minLength: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    """``n`` of ``get_one_embedded_example``."""
    return EMBEDDED_REBER.examples(n, minLength)


sequenceToWord = as_word
