"""The costs that strategy="auto" compares: limits of each part, and what is chosen. No processes, no files."""

from __future__ import annotations

import pytest

from torch_safetensors.distributed._cost import Hardware, Work, block_of, choose, seconds

GB = 10**9
QUICK = Hardware(
    storage_bandwidth=1e15,
    client_bandwidth=1e15,
    storage_latency=0,
    storage_requests=1e15,
    network_bandwidth=1e15,
    network_latency=0,
    requests_in_flight=1,
)


def replicated(ranks: int, size: int = GB, **more: int) -> Work:
    return Work(ranks, own=ranks * size, unique=size, shared={ranks: size}, **more)


def sharded(ranks: int, size: int = GB, **more: int) -> Work:
    return Work(ranks, own=size, unique=size, shared={}, **more)


def quick_but(**values: float) -> Hardware:
    return Hardware(**{**vars(QUICK), **values})


@pytest.mark.parametrize(
    ("work", "independent", "broadcast", "everything"),
    [
        (replicated(8), 8, 1, 8),
        (sharded(8), 1, 1, 8),
        (replicated(8, hosts=2), 2, 1, 2),
        (sharded(8, hosts=2), 1, 1, 2),
    ],
)
def test_the_storage_is_shared_by_hosts(work: Work, independent: float, broadcast: float, everything: float) -> None:
    hardware = quick_but(storage_bandwidth=GB)
    assert seconds("independent", work, hardware) == pytest.approx(independent, rel=1e-3)
    assert seconds("broadcast", work, hardware) == pytest.approx(broadcast, rel=1e-3)
    assert seconds("everything", work, hardware) == pytest.approx(everything, rel=1e-3)


def test_the_rank_that_needs_most_is_waited_for() -> None:
    hardware = quick_but(client_bandwidth=GB)
    assert seconds("independent", sharded(4), hardware) == pytest.approx(0.25, rel=1e-3)
    assert seconds("independent", sharded(4, largest=GB // 2), hardware) == pytest.approx(0.5, rel=1e-3)
    assert seconds("broadcast", sharded(4, largest=GB // 2), hardware) == pytest.approx(0.5, rel=1e-3)
    assert seconds("everything", sharded(4, whole=2 * GB), hardware) == pytest.approx(2, rel=1e-3)


def test_requests_wait() -> None:
    hardware = quick_but(storage_latency=1e-3, requests_in_flight=4)
    assert seconds("independent", sharded(4, requests=1000), hardware) == pytest.approx(0.25 + 0.003)


def test_the_storage_answers_so_many_requests() -> None:
    assert seconds("independent", sharded(100, requests=1000), quick_but(storage_requests=1e5)) == pytest.approx(
        1 + 0.002, rel=1e-3
    )


def test_a_round_fits_into_memory() -> None:
    assert block_of(2) == block_of(16) == 16 << 20
    assert block_of(1024) * 1024 == 256 << 20


def test_all_ranks_read_the_header_and_plan() -> None:
    assert seconds("independent", sharded(1000, 0, header=10**6), quick_but(storage_bandwidth=GB)) == pytest.approx(1)
    assert seconds("independent", sharded(1000, 0, tensors=1000), QUICK) == pytest.approx(0.07)


def test_a_part_travels_among_those_who_hold_it() -> None:
    """4 pairs of 8 ranks hold a quarter of 1 GB each: a rank gets the half of it that the other one reads."""
    work = Work(8, own=2 * GB, unique=GB, shared={2: GB})
    assert seconds("broadcast", work, quick_but(network_bandwidth=GB)) == pytest.approx(1 / 8, rel=1e-3)
    mixed = Work(8, own=2 * GB + 8 * GB, unique=2 * GB, shared={2: GB, 8: GB})
    assert seconds("broadcast", mixed, quick_but(network_bandwidth=GB)) == pytest.approx(1 / 8 + 7 / 8, rel=1e-3)


def test_blocks_travel_while_the_next_are_read() -> None:
    """100 rounds of 4 blocks of 1 MB: each reads 4 MB in 4 ms and sends each rank 3 MB in 3 ms, or in 6."""
    work = replicated(4, 400 * 10**6)
    fast, slow = (quick_but(storage_bandwidth=GB, network_bandwidth=speed) for speed in (GB, GB / 2))
    assert seconds("broadcast", work, fast, block=10**6) == pytest.approx(0.4 + 0.003, rel=1e-3)
    assert seconds("broadcast", work, slow, block=10**6) == pytest.approx(0.6 + 0.004, rel=1e-3)
    late = quick_but(network_latency=1e-3)
    assert seconds("broadcast", work, late, block=10**6) == pytest.approx(100 * 3 * 1e-3, rel=1e-3)


def test_what_is_shared_by_all_is_broadcast_and_the_numbers_are_told() -> None:
    hardware = Hardware(storage_bandwidth=100e9, client_bandwidth=10e9, network_bandwidth=10e9)
    strategy, reason = choose(replicated(1000, 1000 * GB), hardware)
    assert strategy == "broadcast"
    for part in ("broadcast: ", "1 TB in 286 s", "1e+03 TB in 1e+04 s", "1000 ranks", "100 GB/s", "10 GB/s each"):
        assert part in reason


@pytest.mark.parametrize(
    "work",
    [
        sharded(1000),
        replicated(1),
        replicated(4, hosts=1),
        Work(4, own=GB + 3 * 1000, unique=GB, shared={4: 1000}),
    ],
)
def test_what_gains_nothing_is_read_independently(work: Work) -> None:
    assert choose(work, Hardware()).strategy == "independent"


def test_the_reason_says_when_nothing_is_shared() -> None:
    assert choose(sharded(4), Hardware()).reason == "independent: no two of 4 ranks need the same bytes"


def test_the_environment_describes_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Hardware.from_environment() == Hardware()
    monkeypatch.setenv("TORCH_SAFETENSORS_STORAGE_BANDWIDTH", "5e9")
    monkeypatch.setenv("TORCH_SAFETENSORS_NETWORK_LATENCY", "0")
    assert Hardware.from_environment() == Hardware(storage_bandwidth=5e9, network_latency=0)


@pytest.mark.parametrize("text", ["fast", "0", "-1", "inf", "nan", ""])
def test_a_wrong_variable_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_SAFETENSORS_STORAGE_BANDWIDTH", text)
    with pytest.raises(ValueError, match=f"TORCH_SAFETENSORS_STORAGE_BANDWIDTH is '{text}', which is no"):
        Hardware.from_environment()
