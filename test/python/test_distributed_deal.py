"""Who writes what: every element once, and everybody about as much."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from torch_safetensors.distributed._boxes import LocalBox, whole_box
from torch_safetensors.distributed._deal import Work, deal, held, holders_of, is_tiled


def deal_to_all(
    types: Sequence[torch.Tensor], holders: Sequence[dict[LocalBox, list[int]]], world_size: int
) -> list[Work]:
    return [deal(types, holders, world_size, rank) for rank in range(world_size)]


def test_shards_of_a_grid_make_up_a_tensor() -> None:
    grid = {LocalBox((0, 0), (2, 2)), LocalBox((0, 2), (2, 1)), LocalBox((2, 0), (1, 2)), LocalBox((2, 2), (1, 1))}
    assert is_tiled((3, 3), grid)
    assert is_tiled((), {LocalBox((), ())})
    assert is_tiled((0, 3), set())


def test_gaps_overlaps_and_what_is_missing_do_not() -> None:
    assert not is_tiled((4,), {LocalBox((0,), (2,))})
    assert not is_tiled((4,), {LocalBox((0,), (1,)), LocalBox((2,), (2,))})
    assert not is_tiled((5,), {LocalBox((0,), (3,)), LocalBox((2,), (2,))})
    assert not is_tiled((2, 2), {LocalBox((0, 0), (1, 1)), LocalBox((1, 1), (1, 1))})
    assert not is_tiled((), set())
    assert not is_tiled((2,), {LocalBox((0,), (3,))})


def test_holders_leave_out_empty_parts() -> None:
    row, none = LocalBox((0,), (2,)), LocalBox((2,), (0,))
    by_rank = [held(boxes) for boxes in ([row, None], [none, row], [row, none])]
    assert holders_of(by_rank) == [{row: [0, 2]}, {row: [1]}]


def test_what_is_held_alike_is_told_and_looked_at_once() -> None:
    """Else 1,000 ranks would tell each other of a million boxes, and each go through them."""
    first, second = LocalBox((0,), (2,)), LocalBox((2,), (2,))
    by_rank = [held([first, first, first, None]), held([second, second, first, second])]
    assert by_rank[0] == ([first, None], [0, 0, 0, 1])
    holders = holders_of(by_rank)
    assert holders == [{first: [0], second: [1]}] * 2 + [{first: [0, 1]}, {second: [1]}]
    assert holders[0] is holders[1]


def test_of_what_is_held_alike_each_tensor_is_dealt() -> None:
    types = [torch.empty(4, dtype=dtype, device="meta") for dtype in (torch.half, torch.float, torch.half)]
    first, second = LocalBox((0,), (2,)), LocalBox((2,), (2,))
    holders = holders_of([held([first] * 3), held([second] * 3)])
    assert deal_to_all(types, holders, 2) == [[(n, first) for n in range(3)], [(n, second) for n in range(3)]]


def test_what_all_hold_is_dealt_evenly() -> None:
    types = [torch.empty(4096, 4096, device="meta"), *(torch.empty(n, device="meta") for n in range(1, 100))]
    boxes = [whole_box(tensor.shape) for tensor in types]
    work = deal_to_all(types, [{box: [0, 1, 2]} for box in boxes], 3)
    loads = [sum(math.prod(box.shape) * 4 for _, box in part) for part in work]
    assert sum(loads) == sum(tensor.nbytes for tensor in types)
    assert max(loads) - min(loads) <= 16 << 20
    for number, tensor in enumerate(types):
        assert is_tiled(tensor.shape, {box for part in work for other, box in part if other == number})


def test_what_one_holds_counts_for_its_share() -> None:
    types = [torch.empty(10, device="meta"), torch.empty(6, device="meta"), torch.empty(3, device="meta")]
    own, first, second = (LocalBox((0,), tuple(tensor.shape)) for tensor in types)
    work = deal_to_all(types, [{own: [0]}, {first: [0, 1]}, {second: [0, 1]}], 2)
    assert work == [[(0, own)], [(1, first), (2, second)]]


def test_a_tensor_of_one_long_row_is_cut_within_it() -> None:
    tensor = torch.empty(1, 9 << 20, 1, device="meta")
    box = LocalBox((5, 0, 0), tuple(tensor.shape))
    work = deal_to_all([tensor], [{box: [0, 1]}], 2)
    assert {piece.offsets[1] for part in work for _, piece in part} == {0, 4 << 20, 8 << 20}
