"""How texts are cut into batches."""

from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.encoder.onnx import WASTE, Fit, _cut
from tagbus.stream.encoder.tokens import BATCH_TOKENS


@given(sizes=st.lists(st.integers(2, 256), max_size=300), most=st.integers(1, 64))
def test_batches_hold_every_text_once_and_waste_little(sizes: list[int], most: int) -> None:
    batches = list(_cut(sizes, Fit(most, BATCH_TOKENS, WASTE)))
    assert sorted(row for rows in batches for row in rows) == list(range(len(sizes)))
    for rows in batches:
        padded = sizes[rows[0]] * len(rows)
        assert len(rows) <= most
        assert padded <= BATCH_TOKENS
        assert padded - sum(sizes[row] for row in rows) <= WASTE
