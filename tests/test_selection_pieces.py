import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsisr.selection import strips
from wsisr.selection.pieces import find_pieces

masks = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 14)))


@pytest.fixture(autouse=True, scope="module")
def strips_of_5_rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "STRIP_PX", 5)
        yield


@settings(deadline=None)
@given(masks, st.sampled_from([4, 8]))
def test_pieces_of_strips_are_those_of_the_whole(mask, connectivity):
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity
    )
    pieces = find_pieces(mask, connectivity)
    own = np.concatenate([numbers[part] for _, numbers, part in pieces.labels()])
    pairs = np.unique([labels.ravel(), own.ravel()], axis=1).T
    assert len(pieces) == count - 1
    # Each of OpenCV's pieces is one of ours.
    assert len(pairs) == len(np.unique(labels)) == len(np.unique(own))
    values = np.arange(mask.size, dtype=np.float64).reshape(mask.shape)
    sums, along = pieces.sums(values), pieces.along_edges()
    for label, number in pairs[pairs[:, 0] > 0].tolist():
        one, found = labels == label, number - 1
        x, y, width, height, area = stats[label]
        assert pieces.area[found] == area
        assert (pieces.left[found], pieces.right[found]) == (x, x + width)
        assert (pieces.top[found], pieces.bottom[found]) == (y, y + height)
        assert sums[found] == values[one].sum()
        edges = (one[0], one[-1], one[:, 0], one[:, -1])
        assert along[found] == max(edge.mean() for edge in edges)
        assert pieces.at_edge[found] == any(edge.any() for edge in edges)
        assert np.array_equal(pieces.where(np.arange(len(pieces)) == found), one)


def test_no_piece_is_chosen_from_an_empty_mask():
    pieces = find_pieces(np.zeros((12, 3), np.bool_))
    assert len(pieces) == 0
    assert not pieces.where(np.zeros(0, np.bool_)).any()


@settings(deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 14))), st.integers(1, 9))
def test_maps_are_thinned_strip_by_strip_as_whole(values, step):
    assert np.array_equal(strips.spaced(values, step), values.ravel()[::step])
    assert np.array_equal(strips.thinned(values, step), values[::step, ::step])


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 6), st.integers(0, 9))
def test_maps_are_reduced_and_enlarged_strip_by_strip_to_the_bits_of_the_whole(
    height, width, by, seed
):
    values = np.random.default_rng(seed).random((height, width), np.float32)
    size = (-(-width // by), -(-height // by))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "STRIP_PX", 32)
        small = strips.area_means(lambda rows: values[rows], values.shape, size)
        whole = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        assert np.array_equal(small, whole.reshape(small.shape))
        for interpolation in (cv2.INTER_LINEAR, cv2.INTER_NEAREST):
            parts = [part for _, part in strips.enlarged(small, values.shape, interpolation)]
            large = cv2.resize(small, (width, height), interpolation=interpolation)
            assert np.array_equal(np.concatenate(parts, axis=1), large)
