import random

import numpy as np
import pytest
from datasketch import MinHash

from tunewright.data.near._minhash import MOST_MISSED, Banding, MinHasher, banding
from tunewright.data.near._shingles import Shingler


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_few_pairs_at_the_threshold(threshold):
    shape = banding(threshold, 128)
    assert shape.values <= 128
    assert shape.missed(threshold) <= MOST_MISSED
    longer = Banding(128 // (shape.rows + 1), shape.rows + 1) if shape.rows < 128 else None
    assert longer is None or longer.missed(threshold) > MOST_MISSED


def test_a_low_threshold_takes_the_widest_net():
    assert banding(0.01, 128) == Banding(128, 1)


def test_missed_is_the_textbook_figure():
    # Leskovec et al., section 3.4.2: b = 20, r = 5, s = 0.8 gives 0.9996
    assert 1 - Banding(20, 5).missed(0.8) == pytest.approx(0.9996, abs=5e-5)


def overlapping(rng: random.Random, shared: int, own: int) -> tuple[str, str]:
    # words that never repeat: a run of n words has n - 4 shingles
    middle = [f"m{rng.getrandbits(60)}" for _ in range(shared + 4)]
    return tuple(
        " ".join([*middle, *(f"{side}{rng.getrandbits(60)}" for _ in range(own))]) for side in "ab"
    )


@pytest.mark.parametrize(("shared", "own"), [(10, 90), (50, 50), (80, 10), (200, 25), (40, 0)])
def test_signatures_estimate_the_jaccard_similarity(shared, own):
    rng = random.Random(shared)
    true = shared / (shared + 2 * own)
    hasher = MinHasher(Banding(128, 1))
    pairs = [overlapping(rng, shared, own) for _ in range(200)]
    found = hasher.signatures(Shingler()([text for pair in pairs for text in pair]))
    ours = (found[0::2] == found[1::2]).mean(axis=1)
    theirs = np.array([estimate(one, other) for one, other in pairs[:40]])
    error = (true * (1 - true) / 128) ** 0.5
    assert abs(ours.mean() - true) <= 4 * error / 200**0.5 + 1e-9
    assert abs(ours.mean() - theirs.mean()) <= 5 * error / 40**0.5 + 1e-9
    assert ours.std() <= 1.25 * error + 1e-9


def estimate(one: str, other: str) -> float:
    sketches = []
    for text in (one, other):
        words, sketch = text.split(), MinHash(num_perm=128)
        sketch.update_batch([" ".join(words[n : n + 5]).encode() for n in range(len(words) - 4)])
        sketches.append(sketch)
    return sketches[0].jaccard(sketches[1])


def test_band_hashes_agree_where_bands_do():
    hasher = MinHasher(Banding(3, 2))
    signatures = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6], [1, 2, 1, 2, 1, 2]], dtype="u4")
    hashes = hasher.band_hashes(signatures)
    assert (hashes[0] == hashes[1]).tolist() == [True, False, True]
    assert len(set(hashes[2].tolist())) == 3
