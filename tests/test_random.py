from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from skboundary._random import draw_seed, forked_rng, spawn_generators


def test_one_draw_makes_the_seed():
    expected = np.random.RandomState(3).randint(2**31 - 1)
    assert draw_seed(3) == expected
    state = np.random.RandomState(3)
    assert draw_seed(state) == expected and draw_seed(state) != expected


def test_threads_take_turns_with_the_global_generator():
    with forked_rng(0):
        want = torch.rand(50)

    def draw(_):
        with forked_rng(0):
            return torch.cat([torch.rand(10) for _ in range(5)])

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(got, want) for got in pool.map(draw, range(200)))


def test_spawned_generators_differ_and_repeat():
    draws = [torch.rand(4, generator=g) for g in spawn_generators(5, 3)]
    again = [torch.rand(4, generator=g) for g in spawn_generators(5, 3)]
    assert all(torch.equal(a, b) for a, b in zip(draws, again))
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


def test_forked_rng_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), forked_rng(1):
        first = torch.rand(3)
        raise KeyError
    with forked_rng(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
