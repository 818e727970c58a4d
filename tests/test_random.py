from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from skboundary._random import draw_seed, forked_rng, spawn_generators


def test_the_seed_is_one_draw_of_random_state():
    expected = np.random.RandomState(3).randint(2**31 - 1)
    assert draw_seed(3) == expected
    state = np.random.RandomState(3)
    assert draw_seed(state) == expected and draw_seed(state) != expected


def test_threads_use_the_global_generator_one_at_a_time():
    with forked_rng(0):
        want = torch.rand(50)

    def draw(_):
        with forked_rng(0):
            return torch.cat([torch.rand(10) for _ in range(5)])

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(got, want) for got in pool.map(draw, range(200)))


def test_spawned_generators_are_distinct_and_reproducible():
    draws = [torch.rand(4, generator=g) for g in spawn_generators(5, 3)]
    again = [torch.rand(4, generator=g) for g in spawn_generators(5, 3)]
    assert all(torch.equal(a, b) for a, b in zip(draws, again))
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


def test_forked_rng_restores_the_global_generator():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), forked_rng(1):
        first = torch.rand(3)
        raise KeyError
    with forked_rng(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
