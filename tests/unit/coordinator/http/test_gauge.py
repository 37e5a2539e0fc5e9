"""Test that the gauge gives the same result for a text however it is split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.coordinator.http.body import Gauge, RefusedError

TREES = st.recursive(
    st.integers() | st.text(alphabet='[]{},:"\\ab'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='[{"\\'), inner),
    max_leaves=20,
)


@given(TREES, st.data())
def test_depth_is_exact_however_the_text_is_cut(tree: Any, data: st.DataObject) -> None:
    text = json.dumps(tree).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    depth = _depth(tree)
    _feed(text, cuts, max_depth=depth)
    if depth:
        with pytest.raises(RefusedError) as refused:
            _feed(text, cuts, max_depth=depth - 1)
        assert refused.value.status == 400


@given(TREES, st.data())
def test_values_are_never_undercounted_and_at_most_doubled(tree: Any, data: st.DataObject) -> None:
    text = json.dumps(tree).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    values = _values(tree)
    _feed(text, cuts, max_values=2 * values)
    if values > 2:
        with pytest.raises(RefusedError) as refused:
            _feed(text, cuts, max_values=(values - 1) // 2)
        assert refused.value.status == 413


@given(st.binary(max_size=200))
def test_garbage_does_not_upset_it(garbage: bytes) -> None:
    _feed(garbage, [len(garbage) // 2])


def _feed(text: bytes, cuts: list[int], **bounds: int) -> None:
    gauge = Gauge(**bounds)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        gauge.feed(text[start:end])


def _depth(tree: Any) -> int:
    if isinstance(tree, list):
        return 1 + max(map(_depth, tree), default=0)
    if isinstance(tree, dict):
        return 1 + max(map(_depth, tree.values()), default=0)
    return 0


def _values(tree: Any) -> int:
    if isinstance(tree, list):
        return 1 + sum(map(_values, tree))
    if isinstance(tree, dict):
        return 1 + len(tree) + sum(map(_values, tree.values()))
    return 1
